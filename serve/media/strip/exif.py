"""The orientation in EXIF metadata, the only entry that changes what a viewer shows.

Cameras and editors write entries that break the rules, and Pillow gives up at the first one. This
reader looks at one entry of the first directory and at nothing else.
"""

import struct

_ORIENTATION = 0x0112
_FORMATS = {1: "B", 3: "H", 4: "I"}
"""The ``struct`` formats of the integer types in which the orientation is written."""
_ENTRY_BYTES = 12


def read_orientation(exif: bytes) -> int:
    """Return the orientation, from 1 (upright) to 8; 1 if ``exif`` does not state it.

    ``exif`` is a TIFF header with its directories, with or without ``Exif\\0\\0`` before it.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 8:
        return 1
    (start,) = struct.unpack_from(order + "I", tiff, 4)
    if start + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(order + "H", tiff, start)
    for at in range(start + 2, min(start + 2 + count * _ENTRY_BYTES, len(tiff) - _ENTRY_BYTES + 1), _ENTRY_BYTES):
        tag, kind, length = struct.unpack_from(order + "HHI", tiff, at)
        if tag == _ORIENTATION and kind in _FORMATS and length == 1:
            (value,) = struct.unpack_from(order + _FORMATS[kind], tiff, at + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def write_orientation(orientation: int) -> bytes:
    """Return EXIF metadata, beginning with a TIFF header, that states nothing else."""
    return b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, _ORIENTATION, 3, 1, orientation, 0, 0)
