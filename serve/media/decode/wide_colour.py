"""Conversion of video in wide or high-dynamic-range colour to BT.709, which every player shows.

The conversion is a table of three dimensions that FFmpeg's filter ``haldclut`` looks up.
"""

from fractions import Fraction

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

from serve.media.colour.space import HLG, PQ, PRIMARIES, SRGB, ColourSpace, to_bt709

_BT2020 = 9
_BT2020_MATRICES = (9, 10)
_UNSPECIFIED = 2
_LEVEL = 8
_STEPS = _LEVEL**2
"""The number of steps of the table along each axis: 64, so that its image has 512 x 512 pixels."""
_FORMAT = "rgb48le"


def wide_colour_of(frame: VideoFrame) -> ColourSpace | None:
    """Return the colour space of ``frame`` if it must be converted, or None for SDR in BT.709.

    The primaries of standard definition count as those of BT.709, from which they hardly differ.
    """
    primaries, transfer = frame.color_primaries, frame.color_trc
    if primaries == _UNSPECIFIED and (frame.colorspace in _BT2020_MATRICES or transfer in (PQ, HLG)):
        primaries = _BT2020
    hdr = transfer in (PQ, HLG)
    if primaries not in PRIMARIES:
        primaries = 1
    return ColourSpace(primaries, transfer if hdr or transfer == SRGB else 0) if hdr or primaries != 1 else None


class WideColour:
    """Converts frames of one colour space to BT.709, 8 bits a channel."""

    def __init__(self, space: ColourSpace, width: int, height: int) -> None:
        self._key = (space, width, height)
        self._graph = Graph()
        one = Fraction(1, 1)
        format_ = VideoFormat(_FORMAT)
        frames = self._graph.add_buffer(width=width, height=height, format=format_, time_base=one, name="frames")
        side = _LEVEL**3
        table = self._graph.add_buffer(width=side, height=side, format=format_, time_base=one, name="table")
        look_up = self._graph.add("haldclut")
        sink = self._graph.add("buffersink")
        frames.link_to(look_up, 0, 0)
        table.link_to(look_up, 0, 1)
        look_up.link_to(sink)
        self._graph.configure()
        values = np.ascontiguousarray(_table(space).reshape(side, side, 3))
        picture = VideoFrame.from_ndarray(values, format=_FORMAT)
        picture.pts, picture.time_base = 0, one
        table.push(picture)
        table.push(None)
        self._frames, self._sink = frames, sink
        self._count = 0

    def fits(self, space: ColourSpace, width: int, height: int) -> bool:
        """Return whether this converter was made for such frames."""
        return self._key == (space, width, height)

    def convert(self, frame: VideoFrame) -> VideoFrame:
        """Return a frame of 16-bit RGB (rgb48le) in the colours of BT.709."""
        frame.pts, frame.time_base = self._count, Fraction(1, 1)
        self._count += 1
        self._frames.push(frame)
        converted = self._sink.pull()
        assert isinstance(converted, VideoFrame)
        return converted


def _table(space: ColourSpace) -> npt.NDArray[np.uint16]:
    """Return the BT.709 values for all steps of red (the fastest), green and blue, ``[n, 3]``."""
    steps = np.linspace(0, 1, _STEPS)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    return np.round(65_535 * to_bt709(np.stack([red, green, blue], -1).reshape(-1, 3), space)).astype(np.uint16)
