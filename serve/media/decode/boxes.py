"""The boxes of an MP4 or QuickTime file."""

from collections.abc import Iterator
from typing import BinaryIO

_HEAD_BYTES = 8
_MOST_BOXES = 100_000
"""How many boxes are looked at; no honest file has more."""


def boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start of the content and the end of each box from ``start`` to ``end``.

    The end may lie behind ``end`` where the file is truncated.
    """
    at = start
    for _ in range(_MOST_BOXES):
        file.seek(at)
        head = file.read(2 * _HEAD_BYTES)
        if len(head) < _HEAD_BYTES or at + _HEAD_BYTES > end:
            return
        length, kind, content = int.from_bytes(head[:4], "big"), head[4:8], at + _HEAD_BYTES
        if length == 1:
            length, content = int.from_bytes(head[8:16], "big"), content + _HEAD_BYTES
        box_end = end if length == 0 else at + length
        yield kind, content, box_end
        if box_end < content:
            return
        at = box_end
