import gc
import io
import tracemalloc
from fractions import Fraction

import numpy as np
import PIL.Image
import pytest

from deployments.wire import Frames
from serve.media.encode.gif import MAX_DELAY, MIN_DELAY, GifEncoder
from serve.media.errors import MediaTooLarge
from serve.media.samples import pan, portrait, stranger
from serve.media.spool import read_media
from tests.unit.serve.media.make_media import encode_all, unnamed_files


def constant(fps: Fraction, count: int, offset: Fraction = Fraction(0)) -> tuple[Fraction, ...]:
    """Return the times of ``count`` frames at a constant rate."""
    return tuple(offset + i / fps for i in range(count))


def encoded(frames: Frames, times: tuple[Fraction, ...], fps: Fraction, seconds: Fraction | None = None) -> bytes:
    """Return the GIF of frames that are shown at ``times``."""
    encoder = GifEncoder(fps, count=len(frames), seconds=seconds)
    encoder.add(frames, times)
    return read_media(encoder.close())


def open_gif(data: bytes) -> tuple[PIL.Image.Image, list[Frames], list[int]]:
    """Return a GIF, its frames and the hundredths of a second for which each is shown."""
    image = PIL.Image.open(io.BytesIO(data))
    frames, delays = [], []
    for i in range(getattr(image, "n_frames", 1)):
        image.seek(i)
        frames.append(np.asarray(image.convert("RGB")))
        delays.append(int(image.info.get("duration", 0)) // 10)
    return image, frames, delays


def moving_square(count: int, ground: Frames) -> Frames:
    """Return frames in which a red square moves over a still ground."""
    frames = np.repeat(ground[None], count, axis=0).copy()
    for i, frame in enumerate(frames):
        frame[20:40, 4 * i : 4 * i + 20] = (200, 20, 30)
    return frames


def test_a_gif_repeats_forever_and_looks_like_its_frames() -> None:
    frames = pan(portrait(), 12, 96, 112)
    image, decoded, delays = open_gif(encode_all(GifEncoder(Fraction(16)), frames, Fraction(16)))
    assert (image.format, image.size, image.info["loop"]) == ("GIF", (96, 112), 0)
    assert sum(delays) == 75
    assert len(decoded) == 12
    for old, new in zip(frames, decoded, strict=True):
        assert np.abs(old.astype(int) - new).mean() < 5
        blocks = [x.astype(float).reshape(28, 4, 24, 4, 3).mean((1, 3)) for x in (old, new)]
        assert np.abs(blocks[0] - blocks[1]).mean() < 1.5  # dithering keeps the colour of every area


def test_the_palette_is_one_for_the_video_and_knows_the_colours_of_all_scenes() -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 250), (0, 0, 0)]
    frames = np.repeat(np.array([np.full((48, 64, 3), colour, np.uint8) for colour in colours]), 10, axis=0)
    data = encoded(frames, constant(Fraction(10), 50), Fraction(10))
    np.testing.assert_array_equal(np.stack(open_gif(data)[1]), frames)
    assert len(data) < 10_000  # a palette of 768 bytes for each frame would take 38,400


@pytest.mark.slow
def test_the_same_video_gives_the_same_bytes() -> None:
    frames = pan(stranger(), 9, 160, 128)
    files = {encoded(frames, constant(Fraction(8), 9), Fraction(8)) for _ in range(3)}
    assert len(files) == 1


@pytest.mark.slow
def test_what_does_not_move_does_not_flicker_and_costs_nothing() -> None:
    ground = pan(portrait(), 1, 192, 224)[0]
    frames = moving_square(30, ground)
    data = encoded(frames, constant(Fraction(10), 30), Fraction(10))
    _, decoded, _ = open_gif(data)
    below = np.stack(decoded)[:, 60:]
    assert (below == below[0]).all()
    assert len(data) < 2.5 * len(encoded(frames[:1], (Fraction(0),), Fraction(10)))


@pytest.mark.parametrize(
    "fps", [Fraction(1), Fraction(8), Fraction(12), Fraction(16), Fraction(24), Fraction(30000, 1001), Fraction(50)]
)
def test_the_delays_add_up_to_the_duration_and_no_frame_is_late(fps: Fraction) -> None:
    times = constant(fps, 61, offset=Fraction(7, 3))
    _, decoded, delays = open_gif(encoded(moving_square(61, np.zeros((48, 300, 3), np.uint8)), times, fps))
    assert len(decoded) == 61
    assert sum(delays) == round(61 / fps * 100)
    shown = np.cumsum([0, *delays[:-1]])
    assert np.abs(shown - [float(time - times[0]) * 100 for time in times]).max() <= 0.5


@pytest.mark.parametrize("fps", [Fraction(51), Fraction(60000, 1001), Fraction(90), Fraction(120)])
@pytest.mark.parametrize("count", [2, 3, 7, 60])
def test_frames_that_browsers_would_slow_down_are_left_out(fps: Fraction, count: int) -> None:
    encoder = GifEncoder(fps, count=count)
    encoder.add(moving_square(count, np.zeros((48, 300, 3), np.uint8)), constant(fps, count))
    _, decoded, delays = open_gif(read_media(encoder.close()))
    assert encoder.frames == len(decoded)
    assert len(decoded) >= count * 20 / fps
    if len(decoded) > 1:
        assert min(delays) >= MIN_DELAY
        assert sum(delays) == round(count / fps * 100)


def test_the_gaps_of_a_variable_rate_are_kept() -> None:
    gaps = np.random.default_rng(0).integers(3, 40, 11)
    times = tuple(Fraction(int(gaps[:i].sum()), 100) for i in range(12))
    frames = moving_square(12, np.zeros((48, 80, 3), np.uint8))
    _, _, delays = open_gif(encoded(frames, times, Fraction(7), seconds=times[-1] + Fraction(9, 10)))
    assert delays == [*gaps, 90]


@pytest.mark.slow
def test_equal_frames_are_all_counted_and_shown_for_their_time() -> None:
    encoder = GifEncoder(Fraction(10))
    encoder.add(np.repeat(stranger()[None], 6, axis=0), constant(Fraction(10), 6))
    _, decoded, delays = open_gif(read_media(encoder.close()))
    assert encoder.frames == len(decoded) == 6
    assert delays == [10] * 6
    assert all((frame == decoded[0]).all() for frame in decoded)


def test_one_frame_is_a_still_gif() -> None:
    encoder = GifEncoder(Fraction(16))
    encoder.add(stranger()[None, :101, :67], (Fraction(3),))
    _, decoded, _ = open_gif(read_media(encoder.close()))
    assert encoder.frames == 1
    assert [frame.shape for frame in decoded] == [(101, 67, 3)]


def test_a_delay_that_gif_cannot_store_is_refused() -> None:
    encoder = GifEncoder(Fraction(1))
    encoder.add(np.zeros((2, 8, 8, 3), np.uint8), (Fraction(0), Fraction(MAX_DELAY + 1, 100)))
    with pytest.raises(MediaTooLarge, match="one frame for 655 seconds"):
        encoder.close()
    encoder.discard()


@pytest.mark.parametrize("count", [0, 4])
def test_an_animation_too_long_is_refused_as_early_as_that_is_known(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("serve.media.encode.gif.MAX_GIF_BYTES", 100_000)
    encoder = GifEncoder(Fraction(16), count=count)
    frames = pan(stranger(), 2, 96, 96)
    if not count:
        encoder.add(frames, constant(Fraction(16), 2))
    with pytest.raises(MediaTooLarge, match="request video/mp4"):
        encoder.add(frames, constant(Fraction(16), 2, offset=Fraction(1)))
    encoder.discard()


def test_frames_that_will_be_left_out_do_not_count_against_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = pan(stranger(), 8, 96, 96)
    monkeypatch.setattr("serve.media.encode.gif.MAX_GIF_BYTES", frames[:5].nbytes)
    assert open_gif(encoded(frames, constant(Fraction(100), 8), Fraction(100)))[2] == [2, 2, 2, 2]


@pytest.mark.slow
def test_the_memory_does_not_grow_with_the_number_of_frames() -> None:
    def peak(count: int) -> int:
        encoder = GifEncoder(Fraction(16))
        tracemalloc.start()
        for i in range(count):
            encoder.add(np.full((1, 240, 320, 3), i % 256, np.uint8), (Fraction(i, 16),))
        encoder.close()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak(2)  # what is imported and cached on first use
    assert peak(80) < peak(8) + 240 * 320 * 3


def test_the_files_are_freed_with_the_encoder() -> None:
    gc.collect()
    before = unnamed_files()
    encoder = GifEncoder(Fraction(16))
    encoder.add(pan(stranger(), 2, 64, 64), constant(Fraction(16), 2))
    assert unnamed_files() == before + 1
    file = encoder.close()
    assert unnamed_files() == before + 1  # the frames are gone, the result is there
    file.close()
    encoder = GifEncoder(Fraction(16))
    encoder.discard()
    assert unnamed_files() == before
