"""Of a WebP, what decides how it looks is left, and nothing else."""

import io
import struct

import numpy as np
import PIL.Image
import pytest

from serve.media.strip.exif import read_orientation, write_orientation
from serve.media.strip.webp import strip_webp
from tests.pictures import decode_image
from tests.unit.serve.media.make_exif import ORIENTATION, exif_of
from tests.unit.serve.media.strip.saved_photo import saved

PROFILE, ALPHA, EXIF, XMP, ANIMATED = 0x20, 0x10, 0x08, 0x04, 0x02
PICTURE = (b"VP8 ", b"some pixels")


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def header(flags: int, rest: bytes = b"\0\0\0\x3b\0\0\x27\0\0") -> tuple[bytes, bytes]:
    return b"VP8X", bytes([flags]) + rest


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"WEBP" + b"".join(chunk(*each) for each in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("needless", [(b"XMP ", b"<x:xmpmeta/>"), (b"C2PA", b"a manifest"), (b"EXIF", b"odd"), (b"????", b"")])
def test_what_only_programs_read_is_left_out_and_its_flag_with_it(needless: tuple[bytes, bytes]) -> None:
    given = webp(header(EXIF | XMP | ALPHA), (b"ALPH", b"abc"), PICTURE, needless)
    assert strip_webp(given) == webp(header(ALPHA), (b"ALPH", b"abc"), PICTURE)


def test_the_orientation_is_all_that_is_left_of_exif() -> None:
    given = webp(header(0), PICTURE, (b"EXIF", exif_of([ORIENTATION, (0x010F, 2, 6, b"maker\0")])))
    assert strip_webp(given) == webp(header(EXIF), PICTURE, (b"EXIF", write_orientation(6)))
    upright = webp(header(EXIF), PICTURE, (b"EXIF", write_orientation(1)))
    assert strip_webp(upright) == webp(header(0), PICTURE)


def test_the_profile_comes_before_the_pixels_and_the_first_one_counts() -> None:
    given = webp(header(0), PICTURE, (b"ICCP", b"first"), (b"ICCP", b"second"))
    assert strip_webp(given) == webp(header(PROFILE), (b"ICCP", b"first"), PICTURE)
    assert strip_webp(webp(header(PROFILE), PICTURE)) == webp(header(0), PICTURE), "a profile that was announced is not there"


def test_the_frames_of_an_animation_stay_in_their_order_and_odd_ones_are_padded() -> None:
    frames = [(b"ANIM", bytes(6)), (b"ANMF", b"odd"), (b"ANMF", b"even")]
    assert strip_webp(webp(header(ANIMATED), *frames)) == webp(header(ANIMATED), *frames)
    last = webp(header(ANIMATED), *frames, (b"ANMF", b"the end"))
    unpadded = last[:4] + struct.pack("<I", len(last) - 9) + last[8:-1]
    assert strip_webp(unpadded) == last


def test_the_first_header_counts() -> None:
    assert strip_webp(webp(header(ALPHA), header(ANIMATED), PICTURE)) == webp(header(ALPHA), PICTURE)


def test_what_follows_the_end_that_the_header_states_is_left_out() -> None:
    data = webp(header(0), PICTURE)
    assert strip_webp(data + chunk(b"VP8 ", b"another picture")) == data
    assert strip_webp(data + b"PK\3\4 an archive") == data


def test_a_simple_file_keeps_its_bytes() -> None:
    data = webp(PICTURE, (b"XMP ", b"<x:xmpmeta/>")) + b"more"
    assert strip_webp(data) is data


@pytest.mark.parametrize(
    "data",
    [
        webp(header(0), PICTURE)[:-5],
        webp(header(0, rest=b"\0\0"), PICTURE),
        webp(header(0), (b"EXIF", b"x"))[:12] + b"VP8X" + struct.pack("<I", 2**32 - 1),
        b"RIFF\x10\0\0\0WEBPVP8X",
    ],
    ids=["a chunk that is cut", "a header that is too short", "a length beyond the file", "nothing behind a name"],
)
def test_what_is_not_well_formed_is_left_to_the_decoder(data: bytes) -> None:
    assert strip_webp(data) is data


def test_pillow_reads_the_pixels_the_profile_and_the_orientation_that_are_left() -> None:
    profile = b"a profile of an odd length."
    data = saved("WEBP", icc_profile=profile, exif=exif_of([ORIENTATION]), xmp=b"<x:xmpmeta/>")
    left = strip_webp(data)
    read = PIL.Image.open(io.BytesIO(left))
    assert read.info["icc_profile"] == profile
    assert read_orientation(read.info["exif"]) == 6
    assert b"xmpmeta" in data
    assert b"xmpmeta" not in left
    np.testing.assert_array_equal(
        np.rot90(decode_image(saved("WEBP"), 10**6), -1),
        decode_image(strip_webp(saved("WEBP", exif=exif_of([ORIENTATION]))), 10**6),
    )
