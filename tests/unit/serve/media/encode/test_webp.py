import io
import tracemalloc
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from serve.media.decode.opening import open_source
from serve.media.encode.webp import WebpEncoder
from serve.media.errors import MediaTooLarge
from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_media import LIMITS, decode_all, encode_all


def test_webp_keeps_pixels_and_rounds_times_not_durations() -> None:
    fps = Fraction(24)
    frames = pan(stranger(), 25, 96, 112)
    data = encode_all(WebpEncoder(fps, 0), frames, fps)
    image = PIL.Image.open(io.BytesIO(data))
    assert (image.format, getattr(image, "n_frames", 1), image.info["loop"]) == ("WEBP", 25, 0)
    decoded, times = decode_all(open_source(data, LIMITS))
    assert float(times[-1]) == pytest.approx(1.0, abs=0.001)
    for old, new in zip(frames, decoded, strict=True):
        assert np.abs(old.astype(int) - new).mean() < 6


def test_equal_frames_are_merged_and_counted_once() -> None:
    encoder = WebpEncoder(Fraction(16), 0)
    encoder.add(np.repeat(stranger()[None], 6, axis=0), tuple(Fraction(i, 16) for i in range(6)))
    data = encoder.close()
    assert encoder.frames == getattr(PIL.Image.open(io.BytesIO(data)), "n_frames", 1) == 1


def test_an_animation_too_long_for_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.media.encode.webp.MAX_WEBP_BYTES", 100_000)
    encoder = WebpEncoder(Fraction(16), 0)
    encoder.add(pan(stranger(), 2, 96, 96), (Fraction(0), Fraction(1, 16)))
    with pytest.raises(MediaTooLarge, match="video/mp4"):
        encoder.add(pan(stranger(), 2, 96, 96), (Fraction(1, 8), Fraction(3, 16)))


def test_an_animation_that_will_be_too_long_is_refused_at_its_first_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.media.encode.webp.MAX_WEBP_BYTES", 100_000)
    with pytest.raises(MediaTooLarge, match="video/mp4"):
        WebpEncoder(Fraction(16), 0, count=4).add(pan(stranger(), 2, 96, 96), (Fraction(0), Fraction(1, 16)))


def test_the_frames_of_an_animation_wait_on_disk() -> None:
    tracemalloc.start()
    encoder = WebpEncoder(Fraction(10), method=0, count=40)
    for i in range(10):
        frames = np.full((4, 480, 640, 3), 20 * i, np.uint8)
        encoder.add(frames, tuple(Fraction(4 * i + k, 10) for k in range(4)))
        del frames
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    encoder.discard()
    assert held < 640 * 480 * 3, "no frame is kept in memory"
    assert most < 3 * 4 * 640 * 480 * 3


@pytest.mark.parametrize("fps", [100, 120, 500, 2000])
def test_frames_that_browsers_would_slow_down_are_left_out(fps: int) -> None:
    rate = Fraction(fps)
    frames = np.random.default_rng(0).integers(0, 255, (fps // 10, 16, 16, 3), np.uint8)
    encoder = WebpEncoder(rate, 0)
    data = encode_all(encoder, frames, rate)
    image = PIL.Image.open(io.BytesIO(data))
    shown = []
    for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        image.load()
        shown.append(image.info["duration"])
    assert len(shown) == encoder.frames < len(frames)
    assert min(shown) > 10
    assert sum(shown) == pytest.approx(1000 * len(frames) / fps, abs=1)
