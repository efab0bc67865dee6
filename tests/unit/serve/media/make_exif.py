"""Builds EXIF metadata."""

import struct

Entry = tuple[int, int, int, bytes]


ORIENTATION: Entry = (0x0112, 3, 1, struct.pack("<H", 6))


def exif_of(entries: list[Entry]) -> bytes:
    """Return EXIF metadata with these entries: tag, type, count and value."""
    table, values = b"", b""
    for tag, kind, count, value in entries:
        if len(value) > 4:
            place = 8 + 2 + 12 * len(entries) + 4 + len(values)
            values += value
            value = struct.pack("<I", place)
        table += struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + values
