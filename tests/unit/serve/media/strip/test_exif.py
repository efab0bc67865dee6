"""The orientation is read whatever else EXIF holds, and written alone."""

import struct

import PIL.Image
import pytest

from serve.media.strip.exif import read_orientation, write_orientation
from tests.unit.serve.media.make_exif import exif_of


def little(*entries: tuple[int, int, int, bytes]) -> bytes:
    """Return a TIFF header with these entries, each of a tag, a type, a count and a value."""
    return exif_of(list(entries)).removeprefix(b"Exif\0\0")


def big(kind: int, value: bytes) -> bytes:
    return b"MM\0*" + struct.pack(">IHHHI", 8, 1, 0x0112, kind, 1) + value.ljust(4, b"\0") + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_what_is_written_is_read_with_or_without_the_name_before_it(orientation: int) -> None:
    written = write_orientation(orientation)
    assert read_orientation(written) == read_orientation(b"Exif\0\0" + written) == orientation
    exif = PIL.Image.Exif()
    exif.load(b"Exif\0\0" + written)
    assert dict(exif) == {0x0112: orientation}


@pytest.mark.parametrize(
    ("kind", "little_value", "big_value"),
    [(1, b"\x06", b"\x06"), (3, b"\x06\0", b"\0\x06"), (4, b"\x06\0\0\0", b"\0\0\0\x06")],
)
def test_every_integer_type_is_read_in_either_order(kind: int, little_value: bytes, big_value: bytes) -> None:
    assert read_orientation(little((0x0112, kind, 1, little_value))) == read_orientation(big(kind, big_value)) == 6


WRONG: dict[str, bytes] = {
    "nothing": b"",
    "no TIFF": b"XX*\0" + bytes(40),
    "the wrong order's mark": b"II\0*" + write_orientation(6)[4:],
    "a header that is cut": b"II*\0\x08\0\0",
    "a directory behind the end": b"II*\0\xff\xff\xff\xff" + bytes(20),
    "a directory at the end": b"II*\0\x08\0\0\0",
    "an entry that is cut": write_orientation(6)[:21],
    "an orientation of 0": little((0x0112, 3, 1, b"\0\0")),
    "an orientation of 9": little((0x0112, 3, 1, b"\x09\0")),
    "two orientations": little((0x0112, 3, 2, b"\x06\0\x06\0")),
    "a text": little((0x0112, 2, 1, b"6\0")),
    "another entry": little((0x0100, 3, 1, b"\x06\0")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_state_an_orientation_is_upright(case: str) -> None:
    assert read_orientation(WRONG[case]) == 1


def test_a_number_of_entries_beyond_the_end_of_the_file_does_not_hide_those_that_are_there() -> None:
    data = bytearray(little((0x0100, 3, 1, b"\x01\0"), (0x0112, 3, 1, b"\x08\0")))
    data[8:10] = b"\xff\xff"
    assert read_orientation(bytes(data)) == 8
