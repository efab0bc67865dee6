"""The texts of a PNG, which may be compressed and so cannot be found by their bytes."""

import zlib
from collections.abc import Iterator
from typing import BinaryIO

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KINDS = (b"tEXt", b"zTXt", b"iTXt")


def png_texts(file: BinaryIO, max_bytes: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keyword and the text of each text chunk of a PNG; nothing for other files.

    A text of more than ``max_bytes``, compressed or not, is left out, and so is one that cannot be
    inflated.
    """
    file.seek(0)
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        return
    while len(head := file.read(8)) == 8:
        size, kind = int.from_bytes(head[:4], "big"), head[4:]
        if kind not in _KINDS or size > max_bytes:
            file.seek(size + 4, 1)  # the checksum is behind the content
            continue
        keyword, _, content = file.read(size).partition(b"\0")
        file.seek(4, 1)
        text = _text(kind, content, max_bytes)
        if text is not None:
            yield keyword, text


def _text(kind: bytes, content: bytes, max_bytes: int) -> bytes | None:
    if kind == b"tEXt":
        return content
    if kind == b"zTXt":  # the first byte is the method, of which there is one
        return _inflated(content[1:], max_bytes)
    # A flag, the method, a language and a translated keyword, each of which ends with a zero.
    parts = content[2:].split(b"\0", 2)
    if len(content) < 2 or len(parts) < 3:
        return None
    return _inflated(parts[2], max_bytes) if content[0] else parts[2]


def _inflated(data: bytes, max_bytes: int) -> bytes | None:
    decompressor = zlib.decompressobj()
    try:
        text = decompressor.decompress(data, max_bytes)
    except zlib.error:
        return None
    return text if decompressor.eof else None
