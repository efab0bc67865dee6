"""Whether a video file is all there, judged by what its parts say about their sizes.

What a container counts may be more than what is shown: files that were cut without encoding them
again keep the old counts. So a file is truncated only if data is missing that is shown.
"""

from av.stream import Stream

from serve.media.decode.boxes import boxes
from serve.media.decode.elements import UNKNOWN, elements, segment_of
from serve.media.errors import MediaError
from serve.media.spool import Media, media_size, open_media

_CLUSTER = b"\x1f\x43\xb6\x75"


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
        for kind, _, end in boxes(file, 0, size):
            if kind == b"moof" and end > size:
                raise MediaError("the video is truncated: its last part is missing; send the complete file")


def is_surely_whole(data: Media) -> bool:
    """Return whether the parts of a Matroska file say that nothing is missing.

    Raises ``MediaError`` if the file ends inside a cluster, where the frames are. Where it returns
    False, as for a stream that was recorded live, only the duration can tell.
    """
    size = media_size(data)
    with open_media(data) as file:
        segment = segment_of(file, size)
        if segment is None:
            return False
        _, at, length = segment
        segment_end = size + 1 if length == UNKNOWN else at + length
        for kind, start, length in elements(file, at, min(size, segment_end)):
            if length == UNKNOWN:
                return False
            if kind == _CLUSTER and start + length > size:
                raise MediaError("the video is truncated: its last part is missing; send the complete file")
        return segment_end <= size


def check_duration(*, ends: float, stated: float, tolerance: float) -> None:
    """Raise ``MediaError`` if a file ends more than ``tolerance`` before its ``stated`` seconds."""
    if stated - ends > tolerance:
        raise MediaError(f"the video is truncated: it ends after {ends:.1f} of {stated:.1f} seconds; send the complete file")
