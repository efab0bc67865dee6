"""The frames of a GIF, each as a GIF of its own."""

import io
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from serve.media.decode.canvas import Disposal
from serve.media.decode.gif_frames import gif_frames
from serve.media.errors import MediaError
from tests.unit.serve.media.make_gif import COLOURS, GifFrame, gif

WHOLE = np.arange(48, dtype=np.uint8).reshape(6, 8) % 8
PART = np.array([[1, 2, 3], [4, 5, 7]], np.uint8)


def decoded(file: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(file)).convert("RGBA")


def test_a_frame_is_a_gif_of_its_size_with_its_transparency() -> None:
    data = gif([GifFrame(WHOLE), GifFrame(PART, left=4, top=3, transparent=2, hundredths=7)], 8, 6)
    whole, part = gif_frames(data)
    assert (whole.box, part.box) == ((0, 0, 8, 6), (4, 3, 7, 5))
    assert (whole.seconds, part.seconds) == (Fraction(1, 10), Fraction(7, 100))
    assert whole.blends
    table = np.array([(*colour, 255) for colour in COLOURS])
    np.testing.assert_array_equal(np.asarray(decoded(whole.file())), table[WHOLE])
    table[2, 3] = 0
    np.testing.assert_array_equal(np.asarray(decoded(part.file())), table[PART])


def test_the_colours_of_a_frame_go_before_those_of_the_file() -> None:
    own = [(10 * i, 20 * i, 30 * i) for i in range(8)]
    for colours in (COLOURS, None):
        (frame,) = gif_frames(gif([GifFrame(PART, colours=own)], 3, 2, colours=colours))
        np.testing.assert_array_equal(np.asarray(decoded(frame.file()))[..., :3], np.array(own)[PART])


def test_an_interlaced_frame_stays_so() -> None:
    image = PIL.Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).convert("P")
    buffer = io.BytesIO()
    image.save(buffer, "GIF", interlace=1)
    (frame,) = gif_frames(buffer.getvalue())
    np.testing.assert_array_equal(np.asarray(decoded(frame.file())), np.asarray(image.convert("RGBA")))


@pytest.mark.parametrize(
    ("number", "disposal"),
    [(0, "KEEP"), (1, "KEEP"), (2, "CLEAR"), (3, "RESTORE"), (4, "RESTORE"), (5, "KEEP"), (7, "KEEP")],
)
def test_a_frame_is_disposed_of_as_in_browsers(number: int, disposal: str) -> None:
    frames = gif_frames(gif([GifFrame(PART, disposal=number), GifFrame(PART)], 3, 2))
    assert [frame.disposal for frame in frames] == [Disposal[disposal], Disposal.KEEP]


def test_a_control_counts_for_one_frame() -> None:
    data = gif([GifFrame(PART, disposal=2, transparent=3), GifFrame(PART)], 3, 2)
    second = data.rindex(b"!\xf9")
    first, other = gif_frames(data[:second] + data[second + 8 :])
    assert (first.disposal, other.disposal) == (Disposal.CLEAR, Disposal.KEEP)
    assert other.seconds == 0
    assert decoded(other.file()).getchannel("A").getextrema() == (255, 255)


def test_a_gif_without_its_end_is_refused_behind_its_last_frame() -> None:
    frames = gif_frames(gif([GifFrame(PART), GifFrame(PART)], 3, 2)[:-1])
    next(frames)
    next(frames)
    with pytest.raises(MediaError, match="its end is missing"):
        next(frames)


def test_a_frame_of_no_pixels_is_refused() -> None:
    with pytest.raises(MediaError, match="a frame has no pixels"):
        list(gif_frames(gif([GifFrame(PART[:, :0])], 3, 2)))
