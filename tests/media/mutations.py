"""Seeded mutations of files: whatever can be wrong with one."""

import random
import struct
from collections.abc import Callable


def flip(data: bytearray, rng: random.Random) -> None:
    """Change single bits or bytes anywhere."""
    for _ in range(rng.choice((1, 2, 8, 64))):
        data[rng.randrange(len(data))] ^= rng.choice((1 << rng.randrange(8), 0xFF))


def flip_header(data: bytearray, rng: random.Random) -> None:
    """Change bytes where most formats keep their sizes and tables."""
    for _ in range(rng.choice((1, 2, 4))):
        data[rng.randrange(min(len(data), 400))] = rng.randrange(256)


def cut(data: bytearray, rng: random.Random) -> None:
    """Leave out the end, or a part in the middle."""
    start = rng.randrange(len(data))
    del data[start : start + rng.choice((1, 7, 100, len(data)))]


def repeat(data: bytearray, rng: random.Random) -> None:
    """Repeat a part, as a copy that went wrong does."""
    start = rng.randrange(len(data))
    part = data[start : start + rng.choice((4, 50, 500))]
    data[start:start] = part * rng.choice((1, 5))


def extreme(data: bytearray, rng: random.Random) -> None:
    """Write a number that is as large, small or negative as can be."""
    at = rng.randrange(max(1, len(data) - 8))
    value = rng.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFF))
    data[at : at + 4] = struct.pack(rng.choice((">I", "<I")), value)


def edit_box(data: bytearray, rng: random.Random) -> None:
    """Change a number inside one of the tables of an MP4, or any byte of another format."""
    names = (
        b"stts",
        b"stsz",
        b"stsc",
        b"stco",
        b"ctts",
        b"elst",
        b"mdhd",
        b"mvhd",
        b"tkhd",
        b"stsd",
        b"avcC",
        b"hdlr",
        b"trun",
    )
    places = [at for name in names if (at := data.find(name)) >= 0]
    if not places:
        return flip_header(data, rng)
    at = rng.choice(places) + 4 + 4 * rng.randrange(8)
    data[at : at + 4] = struct.pack(">I", rng.choice((0, 1, 2, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, rng.randrange(2**32))))
    return None


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (flip, flip_header, cut, repeat, extreme, edit_box)


def mutate(data: bytes, number: int) -> bytes:
    """Return ``data`` with the fault that has this number."""
    rng = random.Random(number)
    mutated = bytearray(data)
    MUTATIONS[number % len(MUTATIONS)](mutated, rng)
    return bytes(mutated)
