"""The boxes of an MP4 or QuickTime file."""

from collections.abc import Iterator
from io import SEEK_END
from typing import BinaryIO

_HEAD_BYTES = 8
_MOST_BOXES = 100_000
"""How many boxes are looked at; no honest file has more."""


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start of the content and the end of each box from ``start`` to ``end``.

    The end may lie behind ``end`` where the file is truncated.
    """
    at, last = start, min(end, file.seek(0, SEEK_END)) - _HEAD_BYTES
    for _ in range(_MOST_BOXES):
        if at > last:  # a length can be larger than any file, where no seek leads
            return
        file.seek(at)
        head = file.read(2 * _HEAD_BYTES)
        length, kind, content = int.from_bytes(head[:4], "big"), head[4:8], at + _HEAD_BYTES
        if length == 1:
            length, content = int.from_bytes(head[8:16], "big"), content + _HEAD_BYTES
        box_end = end if length == 0 else at + length
        yield kind, content, box_end
        if box_end < content:
            return
        at = box_end
