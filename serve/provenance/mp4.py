"""XMP and the label `AIGC` in MP4 files that this service has written."""

import struct
from collections.abc import Iterator
from typing import BinaryIO

from serve.provenance.edits import Edit

_XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
_PARENTS = {b"moov", b"trak", b"mdia", b"minf", b"stbl"}
_OFFSETS = {b"stco": ">I", b"co64": ">Q"}
"""The boxes that list where the samples are, with the format of an offset."""
_TEXT = 1
"""The type of a value in UTF-8."""


def mp4_edits(file: BinaryIO, size: int, packet: bytes, *, aigc: str | None = None) -> list[Edit]:
    """Return the edits that add an XMP packet at the end, and in `moov` a key `AIGC`.

    The index comes before the samples, so that whatever it grows by is added to its offsets.
    """
    edits = [Edit(size, _box(b"uuid", _XMP_UUID + packet))]
    if aigc is None:
        return edits
    at, moov_size = _find(file, size, b"moov")
    file.seek(at)
    moov = file.read(moov_size)
    meta = _meta(aigc)
    changed = bytearray(struct.pack(">I", len(moov) + len(meta)) + moov[4:] + meta)
    for kind, start, end in _leaves(moov, 8, len(moov)):
        if kind in _OFFSETS:
            _shift(changed, start, end, code=_OFFSETS[kind], by=len(meta))
    return [Edit(at, bytes(changed), moov_size), *edits]


def _find(file: BinaryIO, size: int, wanted: bytes) -> tuple[int, int]:
    """Return the offset and the size of a box of the file."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            (length,) = struct.unpack(">Q", file.read(8))
        if kind == wanted:
            return at, length
        at += length or size
    raise ValueError(f"the MP4 file has no {wanted.decode()}")


def _leaves(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each box in ``data`` that has no others, and where its content is."""
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        if kind in _PARENTS:
            yield from _leaves(data, at + 8, at + length)
        else:
            yield kind, at + 8, at + length
        at += length


def _shift(data: bytearray, start: int, end: int, *, code: str, by: int) -> None:
    """Add ``by`` to each offset in the content of a box, behind its version and its count."""
    for at in range(start + 8, end, struct.calcsize(code)):
        (offset,) = struct.unpack_from(code, data, at)
        struct.pack_into(code, data, at, offset + by)


def _meta(aigc: str) -> bytes:
    """Return the box with a key of QuickTime's metadata, which FFmpeg calls a tag."""
    handler = _box(b"hdlr", bytes(8) + b"mdta" + bytes(13))
    key = struct.pack(">I4s", 8 + len("AIGC"), b"mdta") + b"AIGC"
    keys = _box(b"keys", struct.pack(">II", 0, 1) + key)
    value = _box(b"data", struct.pack(">II", _TEXT, 0) + aigc.encode())
    items = _box(b"ilst", struct.pack(">II", 8 + len(value), 1) + value)
    return _box(b"meta", handler + keys + items)


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content
