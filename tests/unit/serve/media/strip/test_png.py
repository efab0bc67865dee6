"""Of a PNG, what decides how it looks is left, and nothing else."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import PIL.Image
import pytest
from PIL import PngImagePlugin

from serve.media.errors import MediaError
from serve.media.strip.exif import write_orientation
from serve.media.strip.png import MAX_PROFILE_BYTES, chunks, strip_png, write_chunk
from tests.pictures import decode_image
from tests.unit.serve.media.make_png import chunk
from tests.unit.serve.media.strip.saved_photo import saved


def control(number: int, width: int = 8, height: int = 8, left: int = 0) -> tuple[bytes, bytes]:
    """Return the chunk of a frame."""
    return b"fcTL", struct.pack(">5I2H2B", number, width, height, left, 0, 1, 10, 0, 0)


def test_text_of_any_length_beside_a_png_does_not_matter() -> None:
    expected = decode_image(saved("PNG"), 10**6)
    for add in ("add_text", "add_itxt"):
        for compressed in (False, True):
            info = PngImagePlugin.PngInfo()
            getattr(info, add)("workflow", "node " * 500_000, zip=compressed)
            np.testing.assert_array_equal(decode_image(saved("PNG", pnginfo=info), 10**6), expected)


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (b"gAMA", b"\0"),
        (b"cHRM", b"\0\0"),
        (b"pHYs", b"\0\0"),
        (b"sRGB", b""),
        (b"tRNS", b"\0"),
        (b"tIME", b"\x07\xea\x02\x1e\x19\x3d\x3d"),
        (b"iCCP", b"x\0\0notzlib"),
        (b"iCCP", b"big\0\0" + zlib.compress(bytes(20_000_000))),
        (b"iTXt", b"\xff\0\1\0\0\0zzz"),
        (b"zTXt", b"\0"),
        (b"eXIf", b"MM"),
        (b"caBX", bytes(3000)),
    ],
)
def test_a_broken_chunk_that_is_not_needed_is_left_out(kind: bytes, content: bytes) -> None:
    data = saved("PNG")
    spoilt = data[:33] + chunk(kind, content) + data[33:]
    np.testing.assert_array_equal(decode_image(spoilt, 10**6), decode_image(data, 10**6))
    wrong_sum = bytearray(data[:33] + chunk(kind, content)[:-1] + b"\x55" + data[33:])
    np.testing.assert_array_equal(decode_image(bytes(wrong_sum), 10**6), decode_image(data, 10**6))


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-300], lambda data: data[: len(data) // 2] + b"\xff" + data[len(data) // 2 + 1 :]]
)
def test_damaged_pixels_of_a_png_are_still_refused(spoil: Callable[[bytes], bytes]) -> None:
    with pytest.raises(MediaError, match="damaged or truncated"):
        decode_image(spoil(saved("PNG")), 10**6)


SIGNATURE = b"\x89PNG\r\n\x1a\n"
PIXELS = chunk(b"IDAT", zlib.compress(b"\0\x40\x80\xc0" * 2))
END = chunk(b"IEND", b"")


def header(kind: int = 2) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 2, 8, kind, 0, 0, 0))


def kinds_of(data: bytes) -> list[bytes]:
    """Return the kinds of the chunks of a PNG."""
    kinds, at = [], len(SIGNATURE)
    while at < len(data):
        kinds.append(data[at + 4 : at + 8])
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return kinds


def stripped(*chunks: bytes, kind: int = 2) -> list[bytes]:
    """Return the kinds of the chunks that are left where these stand before the pixels."""
    return kinds_of(strip_png(SIGNATURE + header(kind) + b"".join(chunks) + PIXELS + END))


BARE = [b"IHDR", b"IDAT", b"IEND"]
PROFILE = [b"IHDR", b"iCCP", b"IDAT", b"IEND"]
GAMMA = struct.pack(">I", 100_000)


@pytest.mark.parametrize(
    ("chunks", "left"),
    [
        ([chunk(b"tEXt", b"a\0b"), chunk(b"tIME", bytes(7)), chunk(b"pHYs", bytes(9))], BARE),
        ([chunk(b"acTL", struct.pack(">2I", 1, 0)), chunk(*control(0, 1, 1))], [b"IHDR", b"acTL", b"fcTL", b"IDAT", b"IEND"]),
        ([chunk(b"PLTE", bytes(3))], [b"IHDR", b"PLTE", b"IDAT", b"IEND"]),
        ([chunk(b"gAMA", GAMMA)], PROFILE),
        ([chunk(b"gAMA", GAMMA), chunk(b"sRGB", b"\0")], BARE),
        ([chunk(b"gAMA", GAMMA)[:-1] + b"\0"], BARE),
        ([chunk(b"gAMA", GAMMA + b"\0")], BARE),
        ([chunk(b"gAMA", b"\x27\x10")], BARE),
        ([chunk(b"cICP", b"\x0c\x0d\0\1")], PROFILE),
        ([chunk(b"cICP", b"\x0c\x0d\1\1")], BARE),
        ([chunk(b"iCCP", b"name\0\0" + zlib.compress(b"a profile"))], PROFILE),
        ([chunk(b"iCCP", b"name\0\0" + zlib.compress(b"a profile")[:-1])], BARE),
        ([chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(MAX_PROFILE_BYTES + 1)))], BARE),
        ([chunk(b"eXIf", write_orientation(6))], [b"IHDR", b"eXIf", b"IDAT", b"IEND"]),
        ([chunk(b"eXIf", write_orientation(1))], BARE),
    ],
)
def test_only_what_decides_how_a_picture_looks_is_left(chunks: list[bytes], left: list[bytes]) -> None:
    assert stripped(*chunks) == left


@pytest.mark.parametrize(("kind", "length", "kept"), [(0, 2, True), (2, 6, True), (3, 1, True), (3, 257, False), (2, 2, False)])
def test_a_transparent_colour_is_left_where_it_has_the_length_of_its_kind(kind: int, length: int, kept: bool) -> None:
    assert (b"tRNS" in stripped(chunk(b"tRNS", bytes(length)), kind=kind)) is kept


def test_the_orientation_moves_behind_the_header_and_the_profile_before_it() -> None:
    data = SIGNATURE + header() + PIXELS + chunk(b"eXIf", write_orientation(8)) + chunk(b"gAMA", GAMMA) + END
    shown = strip_png(data)
    assert kinds_of(shown) == [b"IHDR", b"iCCP", b"eXIf", b"IDAT", b"IEND"]
    assert write_orientation(8) in shown


def test_the_first_of_two_chunks_counts() -> None:
    first, second = (chunk(b"iCCP", b"name\0\0" + zlib.compress(profile)) for profile in (b"the first", b"the second"))
    data = strip_png(SIGNATURE + header() + first + second + PIXELS + END)
    at = data.index(b"iCCP")
    assert zlib.decompress(data[at + 9 : at + 4 + int.from_bytes(data[at - 4 : at], "big")]) == b"the first"


@pytest.mark.parametrize("cut", range(1, 12))
def test_a_chunk_that_is_cut_is_left_to_the_decoder(cut: int) -> None:
    data = SIGNATURE + header() + PIXELS
    assert strip_png(data[:-cut]) == data[:-cut]
    assert strip_png(data + END[:-cut]) == data + END[:-cut]


def test_what_follows_the_end_is_left_out() -> None:
    data = SIGNATURE + header() + PIXELS + END
    assert strip_png(data + b"more") == strip_png(data) == data


def animated() -> bytes:
    """Return an APNG of three frames."""
    buffer = io.BytesIO()
    frames = [PIL.Image.new("RGB", (32, 24), (60 * i, 200 - 60 * i, 90)) for i in range(3)]
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:], duration=100)
    return buffer.getvalue()


def with_animation(*chunks: tuple[bytes, bytes]) -> bytes:
    """Return a still picture with these chunks before its pixels."""
    data = saved("PNG")
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunk(kind, content) for kind, content in chunks) + data[at:]


ANIMATIONS: dict[str, tuple[tuple[bytes, bytes], ...]] = {
    "a count that is too short": ((b"acTL", b"\0\0\0\1"),),
    "more frames than there are": ((b"acTL", struct.pack(">2I", 5, 0)),),
    "two counts": ((b"acTL", struct.pack(">2I", 1, 0)), (b"acTL", struct.pack(">2I", 1, 0)), control(0)),
    "pixels without a count": ((b"fdAT", bytes(9)),),
    "a wrong number": ((b"acTL", struct.pack(">2I", 1, 0)), control(3)),
    "a frame that is too short": ((b"acTL", struct.pack(">2I", 1, 0)), (b"fcTL", bytes(20))),
    "a frame beside the picture": ((b"acTL", struct.pack(">2I", 1, 0)), control(0, left=10_000)),
    "a frame of no pixels": ((b"acTL", struct.pack(">2I", 1, 0)), control(0, width=0)),
    "an unknown way to blend": ((b"acTL", struct.pack(">2I", 1, 0)), (b"fcTL", control(0)[1][:25] + b"\7")),
}


@pytest.mark.parametrize("name", ANIMATIONS)
def test_a_png_with_a_spoilt_animation_is_a_still_picture(name: str) -> None:
    spoilt = with_animation(*ANIMATIONS[name])
    assert strip_png(spoilt) == strip_png(saved("PNG"))
    np.testing.assert_array_equal(decode_image(spoilt, 10**6), decode_image(saved("PNG"), 10**6))


def test_an_animation_with_a_wrong_checksum_is_a_still_picture() -> None:
    data = bytearray(animated())
    data[data.index(b"fcTL") + 4 + 26] ^= 1
    assert not any(kind in strip_png(bytes(data)) for kind in (b"acTL", b"fcTL", b"fdAT"))


def test_a_right_animation_is_kept_and_a_truncated_one_is_no_still_picture() -> None:
    data = animated()
    assert strip_png(data).count(b"fcTL") == 3
    cut = strip_png(data[: data.rindex(b"fdAT") + 12])
    assert cut.count(b"fcTL") == 3


def test_the_chunks_of_a_png_are_found_up_to_one_that_is_cut_off() -> None:
    data = SIGNATURE + header() + PIXELS + END
    assert [kind for kind, _, _ in chunks(data)] == kinds_of(data) == BARE
    assert b"".join(data[start:end] for _, start, end in chunks(data)) == data[len(SIGNATURE) :]
    assert [kind for kind, _, _ in chunks(data[:-1])] == BARE[:-1]
    places = [(start, end) for _, start, end in chunks(data)]
    assert [kind for kind, _, _ in chunks(data, *places[1])] == [b"IDAT"]


def test_a_chunk_is_written_with_its_length_and_its_checksum() -> None:
    assert write_chunk(b"IEND", b"") == b"\0\0\0\0IEND\xaeB`\x82"
    assert write_chunk(b"IDAT", b"pixels") == chunk(b"IDAT", b"pixels")
