"""AVIF pictures with a clean aperture, or with a further property."""

import struct


def with_aperture(data: bytes, *numbers: int) -> bytes:
    """Return an AVIF as Pillow writes it, whose pictures have a clean aperture of these numbers.

    In a picture it becomes a property of the primary item, in an animation a box of the track.
    """
    clap = struct.pack(">I4s8i", 40, b"clap", *numbers)
    if b"moov" in data:
        return _in_track(data, clap)
    file = bytearray(data)
    properties = file.index(b"ipco") - 4
    end = properties + _length(file, properties)
    count, at = 0, properties + 8
    while at < end:
        count, at = count + 1, at + _length(file, at)
    primary = file[file.index(b"pitm") + 8 :][:2]
    # version and flags, the number of items, the primary one, how many properties it has
    ipma = file.index(b"ipma") - 4
    assert file[ipma + 16 : ipma + 18] == primary
    file[ipma + 18] += 1
    file.insert(ipma + 19, 0x80 | (count + 1))
    _grow(file, ipma, by=1)
    file[end:end] = clap
    _grow(file, properties, by=40)
    _grow(file, file.index(b"iprp") - 4, by=41)
    _grow(file, file.index(b"meta") - 4, by=41)
    _shift(file, by=41)
    return bytes(file)


def with_first_property(data: bytes, kind: bytes, content: bytes, *, of_primary: bool) -> bytes:
    """Return an AVIF picture as Pillow writes it with a property before all others.

    The primary item, which must be the only one, has it in place of its colours if ``of_primary``;
    else no item has it.
    """
    box = struct.pack(">I4s", 8 + len(content), kind) + content
    file = bytearray(data)
    properties, ipma = file.index(b"ipco") - 4, file.index(b"ipma") - 4
    assert _length(file, ipma + 12) == 1
    kinds, at = [], properties + 8
    while at < properties + _length(file, properties):
        kinds.append(bytes(file[at + 4 : at + 8]))
        at += _length(file, at)
    for i in range(ipma + 19, ipma + 19 + file[ipma + 18]):
        number = file[i] & 0x7F
        is_replaced = of_primary and kinds[number - 1] == kind
        file[i] = (file[i] & 0x80) | (1 if is_replaced else number + 1)
    file[properties + 8 : properties + 8] = box
    for parent in (b"ipco", b"iprp", b"meta"):
        _grow(file, file.index(parent) - 4, by=len(box))
    _shift(file, by=len(box))
    return bytes(file)


def _in_track(data: bytes, clap: bytes) -> bytes:
    file = bytearray(data)
    parents = [file.index(kind) - 4 for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"av01")]
    for parent in parents:
        assert parent > 0
    entry = file.index(b"av01", parents[-2]) - 4
    end = entry + _length(file, entry)
    for parent in (*parents[:-1], entry):
        _grow(file, parent, by=len(clap))
    offsets = file.index(b"stco") - 4
    for i in range(_length(file, offsets + 12)):
        _grow(file, offsets + 16 + 4 * i, by=len(clap))
    file[end:end] = clap
    _shift(file, by=len(clap))
    return bytes(file)


def _length(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _grow(data: bytearray, at: int, by: int) -> None:
    data[at : at + 4] = struct.pack(">I", _length(data, at) + by)


def _shift(data: bytearray, by: int) -> None:
    """Let the index of items point so many bytes further."""
    at = data.index(b"iloc") - 4
    assert data[at + 8] == 0
    assert data[at + 12] == 0x44, "offsets and lengths have four bytes"
    base = data[at + 13] >> 4
    count, at = int.from_bytes(data[at + 14 : at + 16], "big"), at + 16
    for _ in range(count):
        at += 4 + base
        extents = int.from_bytes(data[at : at + 2], "big")
        at += 2
        for _ in range(extents):
            _grow(data, at, by=by)
            at += 8
