"""The number of scans in a JPEG file, which decides what a progressive one costs to decode."""

import re

_MARKER = re.compile(rb"\xff[^\x00\xff]")
_START_OF_SCAN = 0xDA
_END_OF_IMAGE = 0xD9
_WITHOUT_LENGTH = {0x01, 0xD8, *range(0xD0, 0xD8)}
"""The markers that no segment follows: TEM, SOI and the restart markers."""


def count_scans(data: bytes, limit: int) -> int:
    """Return the number of scans of the first image in ``data``; stop counting after ``limit``.

    The walk follows libjpeg: it skips segments by their length and what is between them by
    searching the next marker, so a thumbnail inside a segment, or a file after the end, is not
    counted. Data that is not a JPEG has no scans.
    """
    scans, at = 0, 0
    while scans <= limit and (found := _MARKER.search(data, at)):
        marker, at = data[found.end() - 1], found.end()
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            continue
        scans += marker == _START_OF_SCAN
        at += int.from_bytes(data[at : at + 2], "big")
    return scans
