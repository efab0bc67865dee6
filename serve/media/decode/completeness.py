"""Whether a video file is all there, judged by what its parts say about their sizes.

What a container counts may be more than what is shown: files that were cut without encoding them
again keep the old counts. So a file is truncated only if data is missing that is shown.
"""

from collections.abc import Iterator
from typing import BinaryIO

from av.stream import Stream

from serve.media.errors import MediaError
from serve.media.spool import Media, media_size, open_media

_SEGMENT, _CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_UNKNOWN = -1
_BOX_BYTES = 8
_MOST_PARTS = 100_000
"""How many boxes or elements are looked at; no honest file has more."""


def check_index(data: Media, video: Stream, audio: Stream | None) -> None:
    """Raise ``MediaError`` if a sample in the index of an MP4 lies behind the end of the file.

    The index must have been read, which for a fragmented file is so once all packets were read.
    """
    size = media_size(data)
    for stream in (video, audio):
        if stream is None:
            continue
        entries = stream.index_entries
        there = sum(entry.pos + entry.size <= size for entry in entries)
        if there < len(entries):
            what = "frames" if stream is video else "pieces of sound"
            raise MediaError(
                f"the video is truncated: it contains {there} of its {len(entries)} {what}; send the complete file"
            )
    with open_media(data) as file:
        for kind, _, end in _boxes(file, size):
            if kind == b"moof" and end > size:
                raise MediaError("the video is truncated: its last part is missing; send the complete file")


def is_surely_whole(data: Media) -> bool:
    """Return whether the parts of a Matroska file say that nothing is missing.

    Raises ``MediaError`` if the file ends inside a cluster, where the frames are. Where it returns
    False, as for a stream that was recorded live, only the duration can tell.
    """
    size = media_size(data)
    with open_media(data) as file:
        segment = _segment(file, size)
        if segment is None:
            return False
        _, at, length = segment
        segment_end = size + 1 if length == _UNKNOWN else at + length
        for _ in range(_MOST_PARTS):
            part = _element(file, at)
            if part is None:
                break
            kind, start, length = part
            if length == _UNKNOWN:
                return False
            if kind == _CLUSTER and start + length > size:
                raise MediaError("the video is truncated: its last part is missing; send the complete file")
            at = start + length
            if at >= min(size, segment_end):
                break
        return segment_end <= size


def _segment(file: BinaryIO, size: int) -> tuple[bytes, int, int] | None:
    """Return the element that holds all others but the header, or None if it is not found."""
    at = 0
    for _ in range(_MOST_PARTS):
        element = _element(file, at)
        if element is None or element[0] == _SEGMENT:
            return element
        _, start, length = element
        if length == _UNKNOWN or start + length >= size:
            return None
        at = start + length
    return None


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start and the end of each box at the top level of an MP4."""
    at = 0
    for _ in range(_MOST_PARTS):
        file.seek(at)
        head = file.read(2 * _BOX_BYTES)
        if len(head) < _BOX_BYTES:
            return
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        end = size if length == 0 else at + length
        yield kind, at, end
        if end < at + _BOX_BYTES:
            return
        at = end


def _element(file: BinaryIO, at: int) -> tuple[bytes, int, int] | None:
    """Return the id, the start of the content and its length of an EBML element, or None."""
    file.seek(at)
    head = file.read(12)
    if not head or not head[0]:
        return None
    id_bytes = 9 - head[0].bit_length()
    if id_bytes > 4 or len(head) <= id_bytes or not head[id_bytes]:
        return None
    length_bytes = 9 - head[id_bytes].bit_length()
    raw = head[id_bytes : id_bytes + length_bytes]
    if len(raw) < length_bytes:
        return None
    most = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(raw, "big") & most
    return head[:id_bytes], at + id_bytes + length_bytes, _UNKNOWN if length == most else length


def check_duration(*, ends: float, stated: float, tolerance: float) -> None:
    """Raise ``MediaError`` if a file ends more than ``tolerance`` before its ``stated`` seconds."""
    if stated - ends > tolerance:
        raise MediaError(f"the video is truncated: it ends after {ends:.1f} of {stated:.1f} seconds; send the complete file")
