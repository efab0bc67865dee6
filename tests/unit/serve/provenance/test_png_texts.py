"""The texts of a PNG are read up to their limit, whatever else it holds."""

import io
import zlib

import pytest

from serve.provenance.png_texts import png_texts
from tests.unit.serve.media.make_png import chunk

SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST = 100


def texts(*chunks: bytes) -> list[tuple[bytes, bytes]]:
    return list(png_texts(io.BytesIO(SIGNATURE + b"".join(chunks)), MOST))


def itxt(text: bytes, *, compressed: bool) -> bytes:
    return chunk(b"iTXt", b"k\0" + bytes([compressed, 0]) + b"de\0Wort\0" + (zlib.compress(text) if compressed else text))


def ztxt(text: bytes) -> bytes:
    return chunk(b"zTXt", b"k\0\0" + zlib.compress(text))


@pytest.mark.parametrize("length", [0, 1, MOST - 20, MOST])
def test_every_kind_of_text_is_read_up_to_the_limit(length: int) -> None:
    text = length * b"x"
    assert texts(ztxt(text), itxt(text, compressed=True)) == 2 * [(b"k", text)]
    short = text[: MOST - 20]  # of a text that is not compressed, all of the chunk counts
    assert texts(chunk(b"tEXt", b"k\0" + short), itxt(short, compressed=False)) == 2 * [(b"k", short)]


@pytest.mark.parametrize(
    "left_out",
    [
        chunk(b"tEXt", b"k\0" + MOST * b"x"),
        ztxt((MOST + 1) * b"x"),
        itxt((MOST + 1) * b"x", compressed=True),
        chunk(b"zTXt", b"k\0\0no zlib"),
        chunk(b"zTXt", b"k\0\0" + zlib.compress(b"cut off")[:-1]),
        chunk(b"zTXt", b"k\0\0" + zlib.compress(b"cut off")[:-6]),
        chunk(b"zTXt", b"k\0"),
        chunk(b"iTXt", b"k\0\1\0de\0Wort\0" + zlib.compress(b"cut off")[:-1]),
        chunk(b"iTXt", b"k\0\0"),
        chunk(b"iTXt", b"k\0\0\0de"),
        chunk(b"tIME", bytes(7)),
    ],
    ids=[
        "long",
        "inflates",
        "inflates, iTXt",
        "no zlib",
        "no checksum",
        "cut",
        "empty",
        "cut, iTXt",
        "no method",
        "no language",
        "no text",
    ],
)
def test_what_is_too_long_or_cannot_be_inflated_is_left_out_and_hides_nothing(left_out: bytes) -> None:
    after = chunk(b"tEXt", b"after\0it")
    assert texts(left_out, after) == [(b"after", b"it")]


@pytest.mark.parametrize("file", [b"", SIGNATURE[:7], b"GIF89a" + chunk(b"tEXt", b"k\0text")])
def test_other_files_have_no_texts(file: bytes) -> None:
    assert list(png_texts(io.BytesIO(file), MOST)) == []


def test_a_file_is_read_from_its_beginning_wherever_it_stands() -> None:
    file = io.BytesIO(SIGNATURE + chunk(b"tEXt", b"k\0text"))
    file.seek(5)
    assert list(png_texts(file, MOST)) == [(b"k", b"text")]
