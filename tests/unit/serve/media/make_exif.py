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


FAULTS: dict[str, list[Entry]] = {
    "a rational of the wrong sign": [ORIENTATION, (0x011A, 10, 1, struct.pack("<ii", -1, 0))],
    "text where a number belongs": [ORIENTATION, (0x011A, 2, 3, b"72\0")],
    "a negative width before the orientation": [(0x0100, 9, 1, struct.pack("<i", -1)), ORIENTATION],
    "a type of 8 bytes": [(0x0100, 16, 1, struct.pack("<Q", 2**40)), ORIENTATION],
    "a type that does not exist": [(0x0100, 77, 1, b"\1"), ORIENTATION],
    "a text that is longer than the file": [(0x010E, 2, 2**31, b"x" * 30), ORIENTATION],
    "a directory of pictures that is a loop": [ORIENTATION, (0x014A, 4, 1, struct.pack("<I", 8))],
    "a text in no encoding": [ORIENTATION, (0x9C9B, 1, 8, b"\xff\xd8\xff\xe0abcd")],
}
