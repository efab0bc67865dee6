"""Opens video files by what their first bytes say, and by nothing else: FFmpeg left to guess also reads texts that name other sources."""

import av
import av.error
from av.container import InputContainer

from serve.media.errors import MediaError
from serve.media.spool import Media, open_media

_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
"""What an MP4 or an old QuickTime file may begin with."""
_MATROSKA = b"\x1aE\xdf\xa3"


def is_matroska(data: Media) -> bool:
    """WebM or Matroska."""
    return _head(data)[:4] == _MATROSKA


def is_picture(data: Media) -> bool:
    """Of a kind that Pillow reads."""
    head = _head(data)
    return head[:3] == b"GIF" or head[:4] in (b"RIFF", b"\x89PNG") or head[:2] == b"\xff\xd8"


def open_container(data: Media) -> InputContainer:
    """An MP4, QuickTime, WebM or Matroska file; raises MediaError for anything else."""
    if is_matroska(data):
        kind = "matroska"
    elif _head(data)[4:8] in _BOXES:
        kind = "mov"
    else:
        raise MediaError("not a video that can be read; send MP4, WebM, GIF or WebP")
    try:
        return av.open(open_media(data), mode="r", format=kind)
    except av.error.FFmpegError as e:
        text = f"not a video that can be read, perhaps truncated ({e.strerror}); send MP4, WebM, GIF or WebP"
        raise MediaError(text) from None


def _head(data: Media) -> bytes:
    with open_media(data) as file:
        return file.read(8)
