"""AVIF and HEIC pictures, which are files of boxes, as MP4 is."""

import struct
from collections.abc import Iterator
from fractions import Fraction

_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1"}
_HEAD_BYTES = 64
_CLAP = struct.Struct(">8i")
_TRACK_PATH = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd")
_SAMPLE_ENTRY_BYTES = 78
"""The fields of the description of a track before its boxes."""
_MOST_BOXES = 10_000
"""How many boxes are looked at; no honest file has more."""


def is_heif(head: bytes) -> bool:
    """Return whether a file that begins with ``head`` is an AVIF or HEIC picture."""
    if head[4:8] != b"ftyp":
        return False
    names = head[8 : min(int.from_bytes(head[:4], "big"), _HEAD_BYTES)]
    return names[:4] in _BRANDS


def colour_numbers(data: bytes) -> tuple[int, int] | None:
    """Return the primaries and the transfer characteristic, as H.273 numbers them, or None.

    They stand in the first property of the primary picture that states a colour space by numbers.
    """
    for colour in _item_properties(data, b"colr"):
        if colour[:4] == b"nclx" and len(colour) >= 10:
            return _number(colour, 4, 2), _number(colour, 6, 2)
    return None


def clean_aperture(data: bytes, width: int, height: int, *, is_animated: bool) -> tuple[int, int] | None:
    """Return the size of the part of an AVIF that viewers show, from its first row and column on.

    It is None if they show all of it. Chrome, too, ignores an aperture that is invalid, or that
    begins elsewhere, since pictures cropped in that way hide what their owner cut off.
    """
    clap = _track_property(data, b"clap") if is_animated else next(_item_properties(data, b"clap"), None)
    if clap is None or len(clap) < _CLAP.size:
        return None
    numbers = _CLAP.unpack_from(clap)
    if min(numbers[1::2]) <= 0:
        return None
    wide, high, right, down = (Fraction(n, d) for n, d in zip(numbers[::2], numbers[1::2], strict=True))
    is_anchored = (width - wide) / 2 + right == 0 == (height - high) / 2 + down
    is_possible = 0 < wide <= width and 0 < high <= height and wide.denominator == high.denominator == 1
    return (int(wide), int(high)) if is_anchored and is_possible else None


def _item_properties(data: bytes, kind: bytes) -> Iterator[bytes]:
    """Yield the contents of the properties of this ``kind`` that the primary picture has."""
    meta = next((span for name, *span in _boxes(data, 0, len(data)) if name == b"meta"), None)
    if meta is None:
        return
    parts = {name: (start, end) for name, start, end in _boxes(data, meta[0] + 4, meta[1])}
    if b"pitm" not in parts or b"iprp" not in parts:
        return
    wide_id = data[parts[b"pitm"][0]] > 0
    primary = _number(data, parts[b"pitm"][0] + 4, 4 if wide_id else 2)
    properties: list[tuple[bytes, int, int]] = []
    numbers: list[int] = []
    for name, start, end in _boxes(data, *parts[b"iprp"]):
        if name == b"ipco":
            properties = list(_boxes(data, start, end))
        elif name == b"ipma":
            numbers += _numbers_of(data, start, end, item=primary)
    for number in numbers:
        if 0 < number <= len(properties) and properties[number - 1][0] == kind:
            _, start, end = properties[number - 1]
            yield data[start:end]


def _numbers_of(data: bytes, start: int, end: int, item: int) -> list[int]:
    """Return the numbers, from 1 on, of the properties that an ``ipma`` gives to an item."""
    id_bytes = 4 if data[start : start + 1] > b"\0" else 2
    number_bytes, at = 2 if _number(data, start + 1, 3) & 1 else 1, start + 8
    while at + id_bytes < end:
        found, count = _number(data, at, id_bytes), data[at + id_bytes] if at + id_bytes < len(data) else 0
        at += id_bytes + 1
        if found == item:
            most = 0x7FFF if number_bytes == 2 else 0x7F  # the first bit says whether it is essential
            return [_number(data, at + i * number_bytes, number_bytes) & most for i in range(count)]
        at += count * number_bytes
    return []


def _track_property(data: bytes, kind: bytes) -> bytes | None:
    """Return the content of the box of this ``kind`` in the description of the first track."""
    start, end = 0, len(data)
    for name in _TRACK_PATH:
        found = next(((a, b) for found, a, b in _boxes(data, start, end) if found == name), None)
        if found is None:
            return None
        start, end = found
    for _, entry, entry_end in _boxes(data, start + 8, end):
        return next((data[a:b] for name, a, b in _boxes(data, entry + _SAMPLE_ENTRY_BYTES, entry_end) if name == kind), None)
    return None


def _number(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "big")


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start of the content and the end of each box in ``data``."""
    end = min(end, len(data))
    for _ in range(_MOST_BOXES):
        if start + 8 > end:
            return
        length, head = _number(data, start, 4), 8
        if length == 1:
            length, head = _number(data, start + 8, 8), 16
        stop = end if length == 0 else min(start + length, end)
        if stop < start + head:
            return
        yield data[start + 4 : start + 8], start + head, stop
        start = stop


def strip_heif(data: bytes) -> bytes:
    """Return the picture ``data`` without its EXIF metadata.

    Its boxes say how it is turned, so viewers ignore the orientation in EXIF, and Pillow fails at
    broken entries. The item gets a type that nobody knows, which keeps all lengths.
    """
    at = data.find(b"iinf")
    if at < 4:
        return data
    end = at - 4 + int.from_bytes(data[at - 4 : at], "big")
    return data[:at] + data[at:end].replace(b"Exif", b"skip") + data[end:]
