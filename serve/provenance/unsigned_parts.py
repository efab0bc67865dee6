"""Finds the parts of a file that a C2PA signature leaves out.

What stands there can be replaced without a manifest becoming invalid: in the store of manifests
itself, which is mostly padding, and in MP4 in boxes that players skip. No program has its metadata
there, so nothing that is found there may count as metadata.
"""

import mmap
import re
from collections.abc import Callable, Iterator

Content = bytes | mmap.mmap

MAX_PARTS = 1000
"""The number of parts of a file that are told apart."""
_MAX_BOXES = 100_000
_SKIPPED = (b"free", b"skip", b"mfra")
_STORE = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
"""The identifier of the box in which an MP4 has its manifests."""


def unsigned_parts(content: Content) -> list[tuple[int, int]]:
    """Return where such parts begin and end, in order.

    Each begins behind the end of the one before it, so that nothing that is written into one of
    them can hide what is outside.
    """
    parts: list[tuple[int, int]] = []
    if content[4:8] == b"ftyp":
        return [part for _, part in zip(range(MAX_PARTS), _skipped_boxes(content), strict=False)]
    for magic, (begin, end_of) in _STORES.items():
        if content[: len(magic)] == magic:
            at = 0
            while len(parts) < MAX_PARTS and (found := begin.search(content, at)) is not None:
                at = max(found.end(), end_of(content, found.start()))
                parts.append((found.start(), at))
    return parts


def _skipped_boxes(content: Content) -> Iterator[tuple[int, int]]:
    at = 0
    for _ in range(_MAX_BOXES):
        head = content[at : at + 32]
        size, kind = int.from_bytes(head[:4]), head[4:8]
        size = {0: len(content) - at, 1: int.from_bytes(head[8:16])}.get(size, size)
        if size < 8 or len(kind) < 4:
            return
        if kind in _SKIPPED or (kind == b"uuid" and _STORE in (head[8:24], head[16:32])):
            yield at, at + size
        at += size


def _end_of_segments(content: Content, at: int) -> int:
    """Return the end of a JPEG's segments APP11 in a row, of which the first is at ``at``."""
    while content[at : at + 2] == b"\xff\xeb":
        at += 2 + int.from_bytes(content[at + 2 : at + 4])
    return at


def _end_of_chunk(content: Content, at: int) -> int:
    """Return the end of a chunk of a PNG, whose name is at ``at``, behind its length."""
    return at + 8 + int.from_bytes(content[at - 4 : at])


def _end_of_riff_chunk(content: Content, at: int) -> int:
    return at + 8 + int.from_bytes(content[at + 4 : at + 8], "little")


def _end_of_blocks(content: Content, at: int) -> int:
    """Return the end of an extension of a GIF, whose blocks each begin with their length."""
    at += len(b"C2PA_GIF") + 3
    while content[at : at + 1] not in (b"", b"\0"):
        at += 1 + content[at]
    return at


_STORES: dict[bytes, tuple[re.Pattern[bytes], Callable[[Content, int], int]]] = {
    b"\xff\xd8": (re.compile(rb"\xff\xeb.{14}jumb", re.DOTALL), _end_of_segments),
    b"\x89PNG": (re.compile(rb"caBX"), _end_of_chunk),
    b"RIFF": (re.compile(rb"C2PA.{4}", re.DOTALL), _end_of_riff_chunk),
    b"GIF8": (re.compile(rb"C2PA_GIF.{3}", re.DOTALL), _end_of_blocks),
}
"""By how a file begins, how its store of manifests does, and what finds the end of it."""
