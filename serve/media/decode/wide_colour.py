"""Conversion of video in wide or high-dynamic-range colour to BT.709, which every player shows.

The conversion is a table of three dimensions that FFmpeg's filter ``haldclut`` looks up.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame

_Floats = npt.NDArray[np.float64]

_BT2020, _P3_DCI, _P3_DISPLAY = 9, 11, 12
_PQ, _HLG, _SRGB = 16, 18, 13
_BT2020_MATRICES = (9, 10)
_UNSPECIFIED = 2
_GAMMA = 2.4
"""The exponent of BT.1886, by which screens show BT.709."""
_WHITE_NITS = 203.0
"""The luminance of white in HDR video that also has SDR parts (BT.2408)."""
_PEAK_NITS = 1000.0
"""The peak of the display that HDR video is made for: the one of HLG, and the usual one of PQ."""
_WHITE_XY = (0.3127, 0.3290)
_PRIMARIES = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    _P3_DCI: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    _P3_DISPLAY: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""The chromaticities of red, green and blue, by FFmpeg's numbers. White is D65 for all of them."""
_LEVEL = 8
_STEPS = _LEVEL**2
"""The number of steps of the table along each axis: 64, so that its image has 512 x 512 pixels."""
_FORMAT = "rgb48le"


@dataclass(frozen=True)
class ColourSpace:
    """The primaries and the transfer characteristic of a video, as FFmpeg numbers them."""

    primaries: int
    transfer: int


def wide_colour_of(frame: VideoFrame) -> ColourSpace | None:
    """Return the colour space of ``frame`` if it must be converted, or None for SDR in BT.709.

    The primaries of standard definition count as those of BT.709, from which they hardly differ.
    """
    primaries, transfer = frame.color_primaries, frame.color_trc
    if primaries == _UNSPECIFIED and (frame.colorspace in _BT2020_MATRICES or transfer in (_PQ, _HLG)):
        primaries = _BT2020
    hdr = transfer in (_PQ, _HLG)
    if primaries not in _PRIMARIES:
        primaries = 1
    return ColourSpace(primaries, transfer if hdr or transfer == _SRGB else 0) if hdr or primaries != 1 else None


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


def to_bt709(rgb: _Floats, space: ColourSpace) -> _Floats:
    """Return R'G'B' values ``[n, 3]`` of ``space``, each from 0 to 1, as R'G'B' of BT.709."""
    matrix = np.linalg.inv(_to_xyz(1)) @ _to_xyz(space.primaries)
    if space.transfer == _SRGB:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        linear = np.clip(linear @ matrix.T, 0, 1)
        return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    if space.transfer == _PQ:
        linear = _tone_map(_pq_to_nits(rgb)) / _WHITE_NITS
    elif space.transfer == _HLG:
        linear = _tone_map(_hlg_to_nits(rgb)) / _WHITE_NITS
    else:
        linear = rgb**_GAMMA
    return np.clip(linear @ matrix.T, 0, 1) ** (1 / _GAMMA)


def _to_xyz(primaries: int) -> _Floats:
    """Return the matrix from linear RGB to XYZ."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in _PRIMARIES[primaries]]).T
    x, y = _WHITE_XY
    return columns * np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))


def _pq_to_nits(values: _Floats) -> _Floats:
    """Apply the EOTF of SMPTE ST 2084."""
    root = values ** (1 / 78.84375)
    return 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def _nits_to_pq(nits: _Floats) -> _Floats:
    power = (np.maximum(nits, 0) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def _hlg_to_nits(values: _Floats) -> _Floats:
    """Apply the inverse OETF and the OOTF of BT.2100 for a display of 1,000 nits."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    luminance: _Floats = scene @ np.array([0.2627, 0.6780, 0.0593])
    gain: _Floats = np.maximum(luminance, 1e-9)[:, None] ** 0.2
    return _PEAK_NITS * scene * gain


def _tone_map(nits: _Floats) -> _Floats:
    """Compress up to ``_PEAK_NITS`` into ``_WHITE_NITS``, by the curve of BT.2390.

    All channels of a pixel are scaled alike, by its brightest one, which keeps the hue.
    """
    top = float(_nits_to_pq(np.array(_PEAK_NITS)))
    brightest = np.clip(nits.max(axis=1), 1e-6, _PEAK_NITS)
    level, target = _nits_to_pq(brightest) / top, float(_nits_to_pq(np.array(_WHITE_NITS))) / top
    knee = 1.5 * target - 0.5
    t = np.clip((level - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * target
    mapped = _pq_to_nits(np.where(level < knee, level, spline) * top)
    gain: _Floats = (mapped / brightest)[:, None]
    return np.clip(nits, 0, _PEAK_NITS) * gain
