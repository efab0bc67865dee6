"""Detection of the container format, and opening of video files with PyAV.

The first bytes alone decide which demuxer runs. Left to guess, FFmpeg would also open playlists and
session descriptions, which make it read other files or listen on a socket.
"""

import av
from av.container import InputContainer

from serve.media.boundary import reading
from serve.media.errors import MediaError
from serve.media.heif import is_heif
from serve.media.spool import Media, open_media

_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
"""The types of box that an MP4 or an old QuickTime file may begin with."""
_MATROSKA = b"\x1aE\xdf\xa3"
_SEND = "send MP4, WebM, GIF or WebP"


def is_matroska(data: Media) -> bool:
    """Return whether ``data`` is a WebM or Matroska file."""
    return _head(data)[:4] == _MATROSKA


def is_image(data: Media) -> bool:
    """Return whether ``data`` begins like a GIF, WebP, PNG, JPEG, AVIF or HEIC file."""
    head = _head(data)
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"  # an AVI begins with RIFF, too
    return is_webp or head[:3] == b"GIF" or head[:4] == b"\x89PNG" or head[:2] == b"\xff\xd8" or is_heif(head)


def open_container(data: Media) -> InputContainer:
    """Open an MP4, QuickTime, WebM or Matroska file; raise ``MediaError`` for anything else."""
    if is_matroska(data):
        demuxer = "matroska"
    elif _head(data)[4:8] in _FIRST_BOXES:
        demuxer = "mov"
    else:
        raise MediaError(f"the file is not a video in a supported format; {_SEND}")
    with reading("the video cannot be opened, perhaps because it is truncated", _SEND):
        # Titles and comments do not matter here, so they need not be valid UTF-8.
        return av.open(open_media(data), mode="r", format=demuxer, metadata_errors="replace")


def _head(data: Media) -> bytes:
    with open_media(data) as file:
        return file.read(12)
