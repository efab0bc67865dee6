"""Of a JPEG, what decides how it looks is left, and nothing else."""

import io
import random
import struct

import numpy as np
import PIL.Image
import pytest

from serve.media.strip.exif import read_orientation, write_orientation
from serve.media.strip.jpeg import strip_jpeg
from tests.pictures import decode_image
from tests.unit.serve.media.make_exif import ORIENTATION, exif_of
from tests.unit.serve.media.strip.saved_photo import saved

START, SCAN = b"\xff\xd8", b"\xff\xda\0\x02 entropy \xff\0 coded \xff\xd9"
TABLES, FRAME = b"\xff\xdb\0\x04ab", b"\xff\xc0\0\x04cd"
JFIF = b"JFIF\0\1\1\0\0\1\0\1\0\0"
ADOBE = b"Adobe\0d\0\0\0\0\1"
ICC = b"ICC_PROFILE\0"


def segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg(*segments: bytes) -> bytes:
    """Return a file with ``segments`` before its tables; it has no pixels that could be decoded."""
    return START + b"".join(segments) + TABLES + FRAME + SCAN


def icc(number: int, count: int, piece: bytes) -> bytes:
    return segment(0xE2, ICC + bytes([number, count]) + piece)


@pytest.mark.parametrize(
    "needless",
    [
        segment(0xE0, b"JFXX\0\x10 a thumbnail"),
        segment(0xE0, JFIF[:-1]),
        segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta/>"),
        segment(0xE1, exif_of([(0x010F, 2, 6, b"maker\0")])),
        segment(0xE1, b"Exif\0\0" + write_orientation(1)),
        segment(0xE2, b"MPF\0II*\0 further images"),
        segment(0xE2, ICC + b"\1\1"),
        segment(0xEB, b"a manifest"),
        segment(0xED, b"Photoshop 3.0\0 an editor's settings"),
        segment(0xEE, ADOBE[:-1]),
        segment(0xEF, b"anything"),
        segment(0xFE, b"a comment"),
    ],
)
def test_what_only_programs_read_is_left_out(needless: bytes) -> None:
    assert strip_jpeg(jpeg(needless)) == jpeg()
    assert strip_jpeg(START + TABLES + needless + FRAME + SCAN) == jpeg(), "wherever it stands"


def test_the_first_scan_and_all_behind_it_stay_byte_for_byte() -> None:
    rest = b"\xff\xc4\0\x04ef" + b"\xff\xda\0\x02 a second scan \xff\xd9 and more" + segment(0xFE, b"a comment")
    assert strip_jpeg(jpeg() + rest) == jpeg() + rest


def test_the_segments_that_pixels_need_stay_in_their_order() -> None:
    needed = [segment(0xDD, b"\0\x08"), segment(0xC4, b"huffman"), segment(0xEE, ADOBE), segment(0xCC, b"arithmetic")]
    assert strip_jpeg(jpeg(*needed)) == jpeg(*needed)


def test_a_header_by_jfif_is_written_anew_without_its_thumbnail() -> None:
    with_thumbnail = b"JFIF\0\1\2\1\0\x48\0\x48\1\1abc"
    assert strip_jpeg(jpeg(segment(0xE0, with_thumbnail))) == jpeg(segment(0xE0, JFIF))


def test_the_orientation_is_all_that_is_left_of_exif_and_the_first_one_counts() -> None:
    first, second = segment(0xE1, exif_of([ORIENTATION, (0x010F, 2, 6, b"maker\0")])), segment(0xE1, exif_of([ORIENTATION]))
    left = segment(0xE1, b"Exif\0\0" + write_orientation(6))
    assert strip_jpeg(jpeg(first)) == jpeg(left)
    eight = segment(0xE1, b"Exif\0\0" + write_orientation(8))
    assert strip_jpeg(jpeg(eight, second)) == jpeg(eight)
    assert strip_jpeg(jpeg(segment(0xFE, b"x"), first, segment(0xE0, JFIF))) == jpeg(segment(0xE0, JFIF), left)


def test_a_profile_in_pieces_of_any_order_is_put_together() -> None:
    pieces = [icc(2, 3, b"two"), icc(1, 3, b"one"), icc(3, 3, b"three"), icc(1, 3, b"again")]
    assert strip_jpeg(jpeg(*pieces)) == jpeg(icc(1, 1, b"onetwothree"))


def test_a_long_profile_is_cut_into_as_few_segments_as_can_hold_it() -> None:
    profile = random.Random(3).randbytes(150_000)
    short = [icc(n + 1, 150, profile[n * 1000 : (n + 1) * 1000]) for n in range(150)]
    longest = 65_533 - len(ICC) - 2
    cut = [profile[at : at + longest] for at in range(0, len(profile), longest)]
    assert strip_jpeg(jpeg(*short)) == jpeg(*(icc(n, 3, piece) for n, piece in enumerate(cut, 1)))


@pytest.mark.parametrize("pieces", [[icc(2, 2, b"two")], [icc(1, 3, b"one"), icc(3, 3, b"three")], [icc(0, 1, b"none")]])
def test_a_profile_of_which_a_piece_is_lost_is_left_out(pieces: list[bytes]) -> None:
    assert strip_jpeg(jpeg(*pieces)) == jpeg()


def test_a_profile_that_was_kept_is_the_one_that_pillow_reads() -> None:
    profile = random.Random(4).randbytes(70_000)
    read = PIL.Image.open(io.BytesIO(strip_jpeg(saved("JPEG", icc_profile=profile, comment=b"x", exif=exif_of([ORIENTATION])))))
    assert read.info["icc_profile"] == profile
    assert read_orientation(read.info["exif"]) == 6
    assert "comment" not in read.info


@pytest.mark.parametrize(
    ("noise", "left"),
    [
        (b"\0\0garbage", b""),
        (b"\xff\xff\xff", b""),
        (b"\xff\0", b""),
        (b"\xff\x01", b""),
        (b"\xff\xd3", b""),
        (START, b""),
    ],
)
def test_markers_are_found_behind_what_libjpeg_passes_over(noise: bytes, left: bytes) -> None:
    assert strip_jpeg(START + noise + segment(0xFE, b"a comment") + TABLES + FRAME + SCAN) == jpeg(left)


@pytest.mark.parametrize("length", [b"\0\0", b"\0\1", b"\xff\xff"])
def test_a_segment_that_is_cut_or_too_short_is_left_to_the_decoder_with_all_behind_it(length: bytes) -> None:
    spoilt = b"\xff\xfe" + length + b"a comment"
    data = jpeg()[:-2]
    assert strip_jpeg(START + segment(0xFE, b"x") + spoilt + data) == START + spoilt + data


def test_a_file_that_is_cut_in_its_head_is_left_to_the_decoder() -> None:
    assert strip_jpeg(START) == START
    assert strip_jpeg(START + TABLES) == START + TABLES
    assert strip_jpeg(START + TABLES + b"\xff") == START + TABLES + b"\xff"
    assert strip_jpeg(START + TABLES + b"no marker") == START + TABLES + b"no marker"
    assert strip_jpeg(START + segment(0xFE, b"x") + b"\xff\xd9 tail") == START + b"\xff\xd9 tail"


def test_seeded_faults_in_the_metadata_never_change_the_picture() -> None:
    """Any bytes may stand in the segments; one in four mutations also cuts a segment short."""
    expected = np.asarray(decode_image(saved("JPEG"), 10**6))
    head = saved("JPEG")
    assert head[2:4] == b"\xff\xe0"
    rest = head[4 + int.from_bytes(head[4:6], "big") :]
    segments = {0xE0: b"JFIF\0\1\1\0\0\1\0\1\0\0", 0xE1: exif_of([(0x010F, 2, 6, b"maker\0")]), 0xE2: b"MPF\0II*\0\x08\0\0\0"}
    segments |= {0xED: b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\x10" + bytes(16), 0xEE: b"Adobe\0d\0", 0xFE: b"a comment"}
    rng = random.Random(5)
    for number in range(200):
        marker, payload = rng.choice(sorted(segments.items()))
        spoilt = bytearray(payload)
        for _ in range(rng.choice((1, 3))):
            spoilt[rng.randrange(4, len(spoilt))] = rng.randrange(256)
        if not number % 4:
            del spoilt[rng.randrange(2, len(spoilt)) :]
        data = b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(spoilt) + 2) + spoilt + rest
        np.testing.assert_array_equal(decode_image(data, 10**6), expected, err_msg=f"mutation {number}: {bytes(spoilt)!r}")
