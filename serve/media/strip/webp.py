"""Removal of needless metadata from WebP files."""

import struct

from serve.media.strip.exif import read_orientation, write_orientation

_HEADER_BYTES = 12
_HAS_EXIF, _HAS_XMP, _HAS_PROFILE = 0x08, 0x04, 0x20
_PICTURE = {b"VP8 ", b"VP8L", b"ALPH", b"ANIM", b"ANMF"}


def strip_webp(data: bytes) -> bytes:
    """Return the WebP file ``data`` with its frames, its colour profile and its orientation.

    What follows the end of the file, by its length in its header, is left out.
    """
    if data[_HEADER_BYTES : _HEADER_BYTES + 4] != b"VP8X":
        return data  # a simple file has no metadata
    header, profile, frames = b"", b"", []
    orientation = 1
    at, stop = _HEADER_BYTES, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= stop:
        (length,) = struct.unpack_from("<I", data, at + 4)
        kind, end = data[at : at + 4], at + 8 + length
        if end > len(data):
            return data
        content = data[at + 8 : end]
        if kind == b"VP8X" and length >= 10 and not header:
            header = content
        elif kind == b"ICCP" and not profile:
            profile = content
        elif kind in _PICTURE:
            frames.append(data[at:end] + b"\0" * (length % 2))
        elif kind == b"EXIF":
            orientation = read_orientation(content)
        at = end + length % 2
    if not header:
        return data
    flags = header[0] & ~(_HAS_EXIF | _HAS_XMP | _HAS_PROFILE)
    parts = [b""]
    if profile:
        flags |= _HAS_PROFILE
        parts.append(_chunk(b"ICCP", profile))
    parts += frames
    if orientation != 1:
        flags |= _HAS_EXIF
        parts.append(_chunk(b"EXIF", write_orientation(orientation)))
    parts[0] = _chunk(b"VP8X", bytes([flags]) + header[1:])
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
