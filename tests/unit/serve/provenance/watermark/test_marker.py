import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from serve.provenance.watermark import Payload, Watermark
from tests.unit.serve.provenance.watermark.frames import portrait_film

PAYLOAD = Payload(1, 0x0FEDCBA)


@pytest.mark.parametrize("chunks", [(1,) * 9, (1, 4, 4), (2, 7)], ids=str)
def test_the_mark_does_not_depend_on_the_chunks(chunks: tuple[int, ...]) -> None:
    film = portrait_film(200, 120, 9)
    whole = Watermark(PAYLOAD).mark(film)
    mark = Watermark(PAYLOAD)
    marked = [mark.mark(part) for part in np.split(film, np.cumsum(chunks)[:-1])]
    assert (np.concatenate(marked) == whole).all()


def test_equal_payloads_give_equal_pixels_and_others_do_not() -> None:
    film = portrait_film(200, 120, 3)
    marked = Watermark(PAYLOAD).mark(film)
    assert (Watermark(PAYLOAD).mark(film) == marked).all()
    assert (Watermark(Payload(1, 0x0FEDCBB)).mark(film) != marked).any()
    assert (Watermark(PAYLOAD, b"another secret").mark(film) != marked).any()


def test_frames_are_not_changed_in_place() -> None:
    film = portrait_film(64, 48, 2)
    film.flags.writeable = False
    before = film.copy()
    assert (Watermark(PAYLOAD).mark(film) != before).any()
    assert (film == before).all()


@pytest.mark.parametrize("size", [(256, 144), (640, 360), pytest.param((1920, 1080), marks=pytest.mark.slow)], ids=str)
def test_the_mark_cannot_be_seen(size: tuple[int, int]) -> None:
    film = portrait_film(*size, 1)
    marked = Watermark(PAYLOAD).mark(film)
    assert cv2.PSNR(film[0], marked[0]) > 42
    middle = np.s_[0, size[1] // 4 : size[1] // 4 + 160, size[0] // 4 : size[0] // 4 + 240, 1]
    assert structural_similarity(film[middle], marked[middle]) > 0.99


@pytest.mark.parametrize("level", [0, 255])
def test_black_and_white_do_not_wrap_around(level: int) -> None:
    frames = np.full((1, 96, 128, 3), level, np.uint8)
    marked = Watermark(PAYLOAD).mark(frames).astype(int)
    assert 0 < np.abs(marked - level).max() <= 4


def test_the_mark_changes_no_colour() -> None:
    frames = np.full((1, 96, 128, 3), (90, 120, 160), np.uint8)
    change = Watermark(PAYLOAD).mark(frames).astype(int) - frames
    assert (change == change[..., :1]).all()


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (15, 700), (33, 31), (641, 643)], ids=str)
def test_frames_of_any_size_are_marked(size: tuple[int, int]) -> None:
    frames = np.full((2, *size, 3), 128, np.uint8)
    assert Watermark(PAYLOAD).mark(frames).shape == frames.shape
    plane = frames[0, ..., 0].copy()
    Watermark(PAYLOAD).mark_luma(plane)
    assert np.abs(plane.astype(int) - 128).max() <= 4


def test_luma_gets_the_same_pattern_as_rgb() -> None:
    film = portrait_film(256, 144, 1)
    luma = cv2.cvtColor(film[0], cv2.COLOR_RGB2GRAY)
    plane = luma.copy()
    Watermark(PAYLOAD).mark_luma(plane)
    by_rgb = cv2.cvtColor(Watermark(PAYLOAD).mark(film)[0], cv2.COLOR_RGB2GRAY).astype(float) - luma
    by_luma = plane.astype(float) - luma
    assert float(np.corrcoef(by_rgb.ravel(), by_luma.ravel())[0, 1]) > 0.8


@pytest.mark.parametrize(
    ("width", "height", "flat", "held"),
    [(64, 64, False, True), (63, 200, False, False), (200, 120, True, False), (700, 640, False, True)],
)
def test_a_frame_without_room_or_texture_does_not_count_as_marked(width: int, height: int, flat: bool, held: bool) -> None:
    frames = np.full((1, height, width, 3), 99, np.uint8) if flat else portrait_film(width, height, 1)
    by_rgb, by_luma = Watermark(PAYLOAD), Watermark(PAYLOAD)
    by_rgb.mark(frames)
    by_luma.mark_luma(cv2.cvtColor(frames[0], cv2.COLOR_RGB2GRAY))
    assert (by_rgb.held, by_luma.held) == (held, held)
