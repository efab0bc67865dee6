"""Builds the boxes of MP4 files."""

import struct


def box(kind: bytes, content: bytes = b"", *, length: int | None = None, wide: bool = False) -> bytes:
    """Return a box of MP4; ``wide`` has its length in eight bytes."""
    size = len(content) + (16 if wide else 8) if length is None else length
    return struct.pack(">I4sQ", 1, kind, size) + content if wide else struct.pack(">I4s", size, kind) + content
