"""The part of a video's frames that its container says is shown.

It is the clean aperture (``clap``) of MP4 and QuickTime, and ``PixelCrop`` of Matroska. The program
ffmpeg applies them since 7.1, but its libraries leave that to callers, and PyAV does not say them.
"""

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import BinaryIO

from av.container import InputContainer
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from serve.media.decode.boxes import boxes
from serve.media.decode.elements import elements, segment_of
from serve.media.spool import Media, media_size, open_media

_PATH = (b"mdia", b"minf", b"stbl", b"stsd")
_FULL_BOX_BYTES, _COUNT_BYTES, _VIDEO_ENTRY_BYTES = 4, 4, 78
_CLAP = struct.Struct(">IIIIiIiI")
_TRACKS, _TRACK, _TYPE, _VIDEO = b"\x16\x54\xae\x6b", b"\xae", b"\x83", b"\xe0"
_EDGES = {b"\x54\xcc": "left", b"\x54\xdd": "right", b"\x54\xbb": "top", b"\x54\xaa": "bottom"}
_MOST_BYTES = 8
"""The longest number in an element."""


@dataclass(frozen=True)
class Cropping:
    """How many columns and rows are cut from each edge of a stored frame."""

    left: int = 0
    right: int = 0
    top: int = 0
    bottom: int = 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of what is left."""
        return width - self.left - self.right, height - self.top - self.bottom


def cropping_of(data: Media, container: InputContainer, video: VideoStream) -> Cropping | None:
    """Return how the frames of ``video`` are cropped, or None if they are shown as they are."""
    width, height = video.codec_context.width, video.codec_context.height
    with open_media(data) as file:
        if "matroska" in container.format.name:
            number = [stream.index for stream in container.streams.video].index(video.index)
            cropping = _pixel_crop(file, media_size(data), number)
        else:
            cropping = _clean_aperture(file, media_size(data), track=video.id, width=width, height=height)
    sides = (cropping.left, cropping.right, cropping.top, cropping.bottom)
    is_possible = min(sides) >= 0 and max(sides) > 0 and min(cropping.size(width, height)) > 0
    return cropping if is_possible else None


class Cropper:
    """Crops frames with FFmpeg's filter ``crop``, which cuts between whole samples of colour."""

    def __init__(self, cropping: Cropping) -> None:
        self._cropping = cropping
        self._filter: tuple[Graph, FilterContext, FilterContext] | None = None
        """The graph, which must live as long as its ends, and these."""
        self._kind: tuple[int, int, str] | None = None

    def crop(self, frame: VideoFrame) -> VideoFrame:
        """Return the part of ``frame`` that is shown."""
        width, height = self._cropping.size(frame.width, frame.height)
        if min(width, height) <= 0:  # a later frame may be smaller than the header says
            return frame
        kind = (frame.width, frame.height, frame.format.name)
        if self._filter is None or kind != self._kind:
            self._filter, self._kind = self._open(frame, width, height), kind
        _, source, sink = self._filter
        source.push(frame)
        cropped = sink.pull()
        assert isinstance(cropped, VideoFrame)
        return cropped

    def _open(self, frame: VideoFrame, width: int, height: int) -> tuple[Graph, FilterContext, FilterContext]:
        graph = Graph()
        graph.threads = 1
        source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
        x, y = self._cropping.left, self._cropping.top
        crop, sink = graph.add("crop", f"{width}:{height}:{x}:{y}"), graph.add("buffersink")
        graph.link_nodes(source, crop, sink).configure()
        return graph, source, sink


def _pixel_crop(file: BinaryIO, size: int, number: int) -> Cropping:
    """Return the cropping of the video track with this ``number`` of a Matroska file."""
    segment = segment_of(file, size)
    if segment is None:
        return Cropping()
    seen = 0
    for name, start, length in elements(file, segment[1], size):  # editors move the tracks to the end
        if name != _TRACKS:
            continue
        for kind, at, bytes_ in elements(file, start, start + length):
            parts = {} if kind != _TRACK else {part: (a, b) for part, a, b in elements(file, at, at + bytes_)}
            if _VIDEO not in parts or _TYPE not in parts or _number(file, *parts[_TYPE]) != 1:
                continue
            if seen == number:
                begins, bytes_ = parts[_VIDEO]
                found = {_EDGES[e]: _number(file, a, b) for e, a, b in elements(file, begins, begins + bytes_) if e in _EDGES}
                return Cropping(**found)
            seen += 1
    return Cropping()


def _number(file: BinaryIO, at: int, length: int) -> int:
    file.seek(at)
    return int.from_bytes(file.read(length), "big") if 0 <= length <= _MOST_BYTES else 0


def _clean_aperture(file: BinaryIO, size: int, track: int, width: int, height: int) -> Cropping:
    """Return the cropping of the track with the id ``track`` of an MP4 file."""
    for movie, start, end in boxes(file, 0, size):
        if movie != b"moov":
            continue
        for kind, at, track_end in boxes(file, start, end):
            if kind == b"trak" and _id_of(file, at, track_end) == track:
                return _aperture_in(file, at, end=track_end, width=width, height=height)
    return Cropping()


def _id_of(file: BinaryIO, start: int, end: int) -> int:
    for kind, at, _ in boxes(file, start, end):
        if kind == b"tkhd":
            file.seek(at)
            head = file.read(24)
            return int.from_bytes(head[20:24] if head[:1] == b"\1" else head[12:16], "big")
    return -1


def _aperture_in(file: BinaryIO, start: int, end: int, width: int, height: int) -> Cropping:
    for name in _PATH:
        found = next(((at, stop) for kind, at, stop in boxes(file, start, end) if kind == name), None)
        if found is None:
            return Cropping()
        start, end = found
    start += _FULL_BOX_BYTES + _COUNT_BYTES
    for _, entry, entry_end in boxes(file, start, end):
        for kind, at, _ in boxes(file, entry + _VIDEO_ENTRY_BYTES, entry_end):
            if kind == b"clap":
                file.seek(at)
                return _edges(file.read(_CLAP.size), width, height)
        break  # FFmpeg, too, decodes by the first description
    return Cropping()


def _edges(clap: bytes, width: int, height: int) -> Cropping:
    if len(clap) < _CLAP.size:
        return Cropping()
    numbers = _CLAP.unpack(clap)
    if not all(numbers[1::2]):
        return Cropping()
    wide, high, right, down = (Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True))
    if wide > width or high > height:
        return Cropping()
    left, top = int((width - wide) / 2 + right), int((height - high) / 2 + down)
    return Cropping(left=left, right=width - left - int(wide), top=top, bottom=height - top - int(high))
