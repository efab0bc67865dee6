"""Colours that a PNG of 16 bits a channel hides lie on white, and no other colours do."""

import struct
import zlib

import numpy as np
import pytest

from serve.media.strip.exif import write_orientation
from tests.pictures import decode_image
from tests.unit.serve.media.make_png import chunk

KEY, NEAR, OTHER = (0x0A05, 0x1405, 0x1E05), (0x0A77, 0x1477, 0x1E77), (60_000, 50_000, 40_000)
GREY, RGB = 0, 2


def png(kind: int, *, interlaced: bool, turned: bool) -> bytes:
    """Return a picture of 3 x 2 pixels: a hidden one, one nearly like it and another, twice."""
    channels = 1 if kind == GREY else 3
    row = b"\0" + b"".join(struct.pack(f">{channels}H", *colour[:channels]) for colour in (KEY, NEAR, OTHER))
    rows = 2 * row
    if interlaced:  # Adam7: the passes of such a small picture hold these pixels
        pixels = [row[1 + 2 * channels * i :][: 2 * channels] for i in range(3)]
        rows = b"".join([b"\0", pixels[0], b"\0", pixels[2], b"\0", pixels[1], b"\0", *pixels])
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", 3, 2, 16, kind, 0, 0, interlaced))]
    parts.append(chunk(b"tRNS", struct.pack(f">{channels}H", *KEY[:channels])))
    if turned:
        parts.append(chunk(b"eXIf", write_orientation(6)))
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


@pytest.mark.parametrize("kind", [GREY, RGB])
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("turned", [False, True])
def test_a_transparent_colour_of_16_bits(kind: int, interlaced: bool, turned: bool) -> None:
    colours = [
        (255,) * 3,
        *(tuple(level >> 8 for level in (colour if kind == RGB else colour[:1] * 3)) for colour in (NEAR, OTHER)),
    ]
    expected = np.array([colours, colours], np.uint8)
    shown = decode_image(png(kind, interlaced=interlaced, turned=turned), 10**6)
    np.testing.assert_array_equal(shown, np.rot90(expected, -1) if turned else expected)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("hidden", ["lowest", "second", "highest"])
def test_a_transparent_level_of_few_bits(depth: int, hidden: str) -> None:
    top = 2**depth - 1
    key = {"lowest": 0, "second": 1, "highest": top}[hidden]
    levels = [0, 1, top, top - 1] if depth > 1 else [0, 1, 1, 0]
    width = len(levels)
    bits = "".join(f"{level:0{depth}b}" for level in levels)
    bits += "0" * (-len(bits) % 8)
    row = b"\0" + int(bits, 2).to_bytes(len(bits) // 8, "big")
    parts = [
        chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, GREY, 0, 0, 0)),
        chunk(b"tRNS", struct.pack(">H", key)),
        chunk(b"IDAT", zlib.compress(row)),
        chunk(b"IEND", b""),
    ]
    shown = decode_image(b"\x89PNG\r\n\x1a\n" + b"".join(parts), 10**6)
    expected = [255 if level == key else level * 255 // top for level in levels]
    assert shown[0].tolist() == [[level] * 3 for level in expected]
