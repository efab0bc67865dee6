"""Metadata that nobody needs neither stops a picture nor changes it."""

import numpy as np
import pytest

from serve.media.decode.opening import open_source
from serve.media.strip.exif import write_orientation
from serve.media.strip.image import strip
from tests.pictures import decode_image
from tests.unit.serve.media.make_exif import FAULTS, exif_of
from tests.unit.serve.media.make_media import LIMITS, decode_all
from tests.unit.serve.media.strip.saved_photo import saved

KINDS = ("JPEG", "PNG", "WEBP")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_spoilt_entry_beside_the_orientation_does_not_matter(kind: str, fault: str) -> None:
    data = saved(kind, exif=exif_of(FAULTS[fault]))
    expected = np.rot90(decode_image(saved(kind), 10**6), -1)
    np.testing.assert_array_equal(decode_image(data, 10**6), expected)
    (frame,), _ = decode_all(open_source(data, LIMITS))
    np.testing.assert_array_equal(frame, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_applied(kind: str, orientation: int) -> None:
    upright = decode_image(saved(kind), 10**6)
    stored = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: np.rot90(a, 2), 4: lambda a: a[::-1]}
    stored |= {5: lambda a: a.transpose(1, 0, 2), 6: lambda a: np.rot90(a, -1), 8: lambda a: np.rot90(a, 1)}
    stored |= {7: lambda a: np.rot90(a, 2).transpose(1, 0, 2)}
    data = saved(kind, exif=b"Exif\0\0" + write_orientation(orientation))
    np.testing.assert_array_equal(decode_image(data, 10**6), stored[orientation](upright))


def test_what_follows_the_end_of_a_picture_does_not_matter() -> None:
    for kind in KINDS:
        data = saved(kind)
        np.testing.assert_array_equal(decode_image(data + b"PK\3\4 an archive", 10**6), decode_image(data, 10**6))
    spoilt = bytearray(saved("PNG"))
    spoilt[spoilt.index(b"IEND") + 4] ^= 1  # its checksum
    decode_image(bytes(spoilt), 10**6)


def test_a_file_without_metadata_keeps_its_bytes() -> None:
    for data in (saved("PNG"), saved("WEBP"), b"GIF89a", b"", b"RIFF\4\0\0\0WEBP", b"\xff\xd8", b"\x89PNG\r\n\x1a\n"):
        assert strip(data) == data


@pytest.mark.parametrize("tail", [b"", b"\0", b"\n", b"PK\3\4" * 200, b"ALPH" + bytes(20)])
@pytest.mark.parametrize("kind", [*KINDS, "PNG without its end"])
def test_what_follows_a_picture_or_is_missing_at_its_end_does_not_matter(kind: str, tail: bytes) -> None:
    data = saved(kind[:4].strip(), exif=exif_of(FAULTS["a rational of the wrong sign"]))
    expected = decode_image(data, 10**6)
    assert expected.shape[:2] == (60, 40), "it is not turned"
    if kind == "PNG without its end":
        data = data[: data.index(b"IEND") - 4]
    np.testing.assert_array_equal(decode_image(data + tail, 10**6), expected)
