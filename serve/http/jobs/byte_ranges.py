"""Range requests (RFC 9110, section 14): which bytes of a file a caller wants."""

import re
from dataclasses import dataclass

from serve.problems import Problem

MAX_RANGES = 32
"""Number of ranges in a request; one with more of them gets the whole file."""
_SPEC = re.compile(r"(?P<first>\d{0,18})-(?P<last>\d{0,18})")


@dataclass(frozen=True)
class ByteRange:
    """The bytes from ``start`` to ``end``, which is not included, of a file of ``size`` bytes."""

    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str:
        """The value of the Content-Range header."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """Return the range that a Range header asks for, or None if the whole file is to be sent.

    A header in another unit or form is ignored, and several ranges are answered by the whole file
    unless only one of them is within it: RFC 9110 leaves that to the server. Raises a 416 problem
    if no range is within the file.
    """
    if header is None:
        return None
    unit, _, text = header.partition("=")
    specs = [spec.strip() for spec in text.split(",") if spec.strip()]
    if unit.strip().lower() != "bytes" or not 1 <= len(specs) <= MAX_RANGES:
        return None
    found = []
    for spec in specs:
        match = _SPEC.fullmatch(spec)
        if match is None or spec == "-":
            return None
        first, last = match["first"], match["last"]
        if first and last and int(last) < int(first):
            return None  # such a range is malformed, so the header has no meaning
        if part := _within(first, last, size):
            found.append(part)
    if not found:
        detail = f"the result has {size} bytes, and `Range` asks for none of them"
        raise Problem(416, "range-not-satisfiable", detail, headers={"Content-Range": f"bytes */{size}"})
    return found[0] if len(found) == 1 else None


def _within(first: str, last: str, size: int) -> ByteRange | None:
    """Return the part of a range that is within the file, or None if there is none."""
    if not first:
        start, end = max(size - int(last), 0), size
    else:
        start, end = int(first), min(int(last) + 1, size) if last else size
    return ByteRange(start, end, size) if start < end else None
