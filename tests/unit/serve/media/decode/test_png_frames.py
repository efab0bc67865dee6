"""The frames of an animated PNG, each as a PNG of its own."""

import io
import struct
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from serve.media.decode.canvas import Disposal
from serve.media.decode.png_frames import png_frames
from serve.media.errors import MediaError
from tests.unit.serve.media.make_png import PngFrame, animated_png, chunk

_RANDOM = np.random.default_rng(0)
WHOLE = _RANDOM.integers(0, 256, (6, 8, 3), np.uint8)
PART = _RANDOM.integers(0, 256, (3, 4, 3), np.uint8)
FRAMES = [PngFrame(WHOLE), PngFrame(PART, left=2, top=1, disposal=2, blending=1, delay=(3, 0))]


def decoded(file: bytes) -> PIL.Image.Image:
    image = PIL.Image.open(io.BytesIO(file))
    image.load()
    return image


@pytest.mark.parametrize("still", [None, PngFrame(WHOLE[::-1])])
def test_a_frame_is_a_png_of_its_size(still: PngFrame | None) -> None:
    whole, part = png_frames(animated_png(FRAMES, 2, still=still))
    assert (whole.box, part.box) == ((0, 0, 8, 6), (2, 1, 6, 4))
    assert (whole.disposal, part.disposal) == (Disposal.KEEP, Disposal.RESTORE)
    assert (whole.blends, part.blends) == (False, True)
    assert (whole.seconds, part.seconds) == (Fraction(1, 10), Fraction(3, 100))
    for frame, expected in ((whole, WHOLE), (part, PART)):
        image = decoded(frame.file())
        assert getattr(image, "n_frames", 1) == 1
        np.testing.assert_array_equal(np.asarray(image), expected)


def test_all_frames_have_the_colours_and_the_transparency_of_the_file() -> None:
    colours = chunk(b"PLTE", bytes([255, 0, 0, 0, 255, 0])) + chunk(b"tRNS", b"\x40")
    frames = [PngFrame(np.full((2, 2, 1), number, np.uint8)) for number in (0, 1)]
    first, second = (decoded(frame.file()).convert("RGBA") for frame in png_frames(animated_png(frames, 3, colours)))
    assert first.getpixel((0, 0)) == (255, 0, 0, 0x40)
    assert second.getpixel((0, 0)) == (0, 255, 0, 255)


def test_a_frame_may_be_in_several_chunks() -> None:
    data = animated_png(FRAMES, 2)
    at = data.rindex(b"fdAT")
    content = data[at + 4 : at + 4 + int.from_bytes(data[at - 4 : at], "big")]
    pieces = [content[:10], content[:4] + content[10:11], content[:4] + content[11:]]
    split = data[: at - 4] + b"".join(chunk(b"fdAT", piece) for piece in pieces) + chunk(b"IEND", b"")
    *_, last = png_frames(split)
    np.testing.assert_array_equal(np.asarray(decoded(last.file())), PART)


def test_what_is_there_of_the_last_frame_is_decoded() -> None:
    data = animated_png(FRAMES, 2)
    for without_sum in (12, 16):
        *_, last = png_frames(data[:-without_sum])
        np.testing.assert_array_equal(np.asarray(decoded(last.file())), PART)
    *_, last = png_frames(data[:-40])
    with pytest.raises(OSError, match="truncated"):
        decoded(last.file())


@pytest.mark.parametrize(
    "control",
    [
        struct.pack(">5I2H2B", 0, 2**31 - 1, 2**31 - 1, 0, 0, 1, 10, 0, 0),
        struct.pack(">5I2H2B", 0, 8, 6, 1, 0, 1, 10, 0, 0),
        struct.pack(">5I2H2B", 0, 8, 6, 0, 1, 1, 10, 0, 0),
        struct.pack(">5I2H2B", 0, 0, 6, 0, 0, 1, 10, 0, 0),
        struct.pack(">5I2H2B", 0, 8, 0, 0, 0, 1, 10, 0, 0),
        struct.pack(">5I2H2B", 0, 8, 6, 0, 0, 1, 10, 3, 0),
        bytes(25),
    ],
)
def test_a_frame_outside_the_picture_is_refused(control: bytes) -> None:
    data = animated_png(FRAMES, 2)
    at = data.index(b"fcTL") - 4
    with pytest.raises(MediaError, match="damaged"):
        list(png_frames(data[:at] + chunk(b"fcTL", control) + data[at + 38 :]))


def test_a_table_of_more_colours_than_there_can_be_is_not_copied_to_every_frame() -> None:
    large = chunk(b"PLTE", bytes(3 * 257))
    assert all(large not in frame.file() for frame in png_frames(animated_png(FRAMES, 2, large)))
