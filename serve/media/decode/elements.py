"""The elements (EBML) of a WebM or Matroska file."""

from collections.abc import Iterator
from typing import BinaryIO

_SEGMENT = b"\x18\x53\x80\x67"
UNKNOWN = -1
"""The length of an element that ends with its parent."""
_MOST_ELEMENTS = 100_000
"""How many elements are looked at; no honest file has more."""


def segment_of(file: BinaryIO, size: int) -> tuple[bytes, int, int] | None:
    """Return the element that holds all others but the header, or None if it is not found."""
    at = 0
    for _ in range(_MOST_ELEMENTS):
        element = _element_at(file, at)
        if element is None or element[0] == _SEGMENT:
            return element
        _, start, length = element
        if length == UNKNOWN or start + length >= size:
            return None
        at = start + length
    return None


def elements(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the id, the start of the content and its length of each element up to ``end``.

    One of unknown length is the last.
    """
    at = start
    for _ in range(_MOST_ELEMENTS):
        element = _element_at(file, at) if at < end else None
        if element is None:
            return
        yield element
        if element[2] == UNKNOWN:
            return
        at = element[1] + element[2]


def _element_at(file: BinaryIO, at: int) -> tuple[bytes, int, int] | None:
    """Return the id, the start of the content and its length of an element, or None."""
    file.seek(at)
    head = file.read(12)
    if not head or not head[0]:
        return None
    id_bytes = 9 - head[0].bit_length()
    if id_bytes > 4 or len(head) <= id_bytes or not head[id_bytes]:
        return None
    length_bytes = 9 - head[id_bytes].bit_length()
    raw = head[id_bytes : id_bytes + length_bytes]
    if len(raw) < length_bytes:
        return None
    most = (1 << 7 * length_bytes) - 1
    length = int.from_bytes(raw, "big") & most
    return head[:id_bytes], at + id_bytes + length_bytes, UNKNOWN if length == most else length
