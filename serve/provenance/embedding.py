"""Puts XMP into files that this service has written.

Such files are well formed, so nothing here expects damage. The packet of any file is found by
``packet_scan``.
"""

import struct
import zlib
from collections.abc import Callable, Mapping

from serve.media.spool import Media, media_size, open_media
from serve.provenance.edits import Edit, apply
from serve.provenance.mp4 import mp4_edits

_JPEG_NAMESPACE = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_KEYWORD = b"XML:com.adobe.xmp\0\0\0\0\0"
"""The keyword, no compression, and neither a language nor a translation."""
_GIF_MAGIC = bytes((0x01, *range(0xFF, -1, -1), 0x00))
"""What ends a packet in GIF: a decoder that takes the text for blocks ends up at the last byte."""
_HAS_XMP = 0x04
_VP8X_BYTES = 10


class NotEmbedded(Exception):
    """The file is not laid out as this service writes it."""


def embed(media: Media, media_type: str, packet: bytes, *, aigc: str | None = None) -> Media:
    """Return a copy of ``media`` with an XMP packet, which must not have one yet.

    ``aigc`` is the label of GB 45438-2025 for those places outside XMP in which programs look for
    it. Raises ``NotEmbedded`` for a file that is not as this service writes it.
    """
    if media_type == "video/mp4":
        with open_media(media) as file:
            return apply(media, mp4_edits(file, media_size(media), packet, aigc=aigc))
    return apply(media, _EDITS[media_type](media, packet, aigc))


def _jpeg(media: Media, packet: bytes, _: str | None) -> list[Edit]:
    with open_media(media) as file:
        head = file.read(6)
    if head[:2] != b"\xff\xd8":
        raise NotEmbedded("the file is not a JPEG")
    at = 2
    if head[2:4] == b"\xff\xe0":  # JFIF comes first
        at = 4 + int.from_bytes(head[4:6], "big")
    payload = _JPEG_NAMESPACE + packet
    return [Edit(at, struct.pack(">BBH", 0xFF, 0xE1, len(payload) + 2) + payload)]


def _png(media: Media, packet: bytes, aigc: str | None) -> list[Edit]:
    with open_media(media) as file:
        head = file.read(16)
    if head[12:16] != b"IHDR":
        raise NotEmbedded("the file is not a PNG")
    chunks = _png_chunk(b"iTXt", _PNG_KEYWORD + packet)
    if aigc is not None:
        chunks += _png_chunk(b"iTXt", b"AIGC\0\0\0\0\0" + aigc.encode())
    return [Edit(33, chunks)]  # behind the signature and the header


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def _webp(media: Media, packet: bytes, _: str | None) -> list[Edit]:
    size = media_size(media)
    with open_media(media) as file:
        head = file.read(30)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        raise NotEmbedded("the file is not a WebP")
    chunk = b"XMP " + struct.pack("<I", len(packet)) + packet + b"\0" * (len(packet) % 2)
    if head[12:16] == b"VP8X":
        extended, added = [Edit(20, bytes([head[20] | _HAS_XMP]), 1)], 0
    else:
        content = _canvas(head)
        extended, added = [Edit(12, b"VP8X" + struct.pack("<I", len(content)) + content)], 8 + len(content)
    riff = Edit(4, struct.pack("<I", size - 8 + added + len(chunk)), 4)
    return [riff, *extended, Edit(size, chunk)]


def _canvas(head: bytes) -> bytes:
    """Return the content of the VP8X chunk for a simple file that begins with ``head``."""
    kind, alpha = head[12:16], 0
    if kind == b"VP8 " and head[23:26] == b"\x9d\x01\x2a":
        width, height = (number & 0x3FFF for number in struct.unpack_from("<HH", head, 26))
    elif kind == b"VP8L" and head[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", head, 21)
        width, height, alpha = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, (bits >> 28 & 1) << 4
    else:
        raise NotEmbedded("the file is not a WebP with one picture")
    sides: bytes = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    content: bytes = bytes((_HAS_XMP | alpha, 0, 0, 0)) + sides
    assert len(content) == _VP8X_BYTES
    return content


def _gif(media: Media, packet: bytes, _: str | None) -> list[Edit]:
    size = media_size(media)
    with open_media(media) as file:
        file.seek(size - 1)
        if file.read(1) != b"\x3b":
            raise NotEmbedded("the file is not a complete GIF")
    return [Edit(size - 1, b"\x21\xff\x0bXMP DataXMP" + packet + _GIF_MAGIC)]


_EDITS: Mapping[str, Callable[[Media, bytes, str | None], list[Edit]]] = {
    "image/jpeg": _jpeg,
    "image/png": _png,
    "image/webp": _webp,
    "image/gif": _gif,
}
