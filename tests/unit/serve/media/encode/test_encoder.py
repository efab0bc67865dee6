from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from serve.media.decode.opening import open_source
from serve.media.encode.encoder import Clock, Encoder
from serve.media.encode.gif import GifEncoder
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.encode.webp import WebpEncoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.samples import pan, stranger
from serve.media.spool import read_media
from tests.unit.serve.media.make_media import LIMITS


def new(kind: type[Encoder], fps: Fraction = Fraction(16), seconds: Fraction | None = None, count: int = 0) -> Encoder:
    if kind is Mp4Encoder:
        return Mp4Encoder(fps, "medium", 18, seconds=seconds)
    if kind is GifEncoder:
        return GifEncoder(fps, count=count, seconds=seconds)
    return WebpEncoder(fps, method=0, count=count, seconds=seconds)


@pytest.mark.parametrize(
    ("kind", "count"), [(Mp4Encoder, 1), *((kind, count) for kind in (Mp4Encoder, WebpEncoder) for count in (2, 5, 12))]
)
def test_the_last_frame_of_a_variable_rate_keeps_its_duration(kind: type[Encoder], count: int) -> None:
    gaps = np.random.default_rng(count).integers(11, 90, count - 1)
    times = tuple(Fraction(int(gaps[:i].sum()), 1000) for i in range(count))
    seconds = times[-1] + Fraction(7, 10)
    encoder = new(kind, count / seconds, seconds, count)
    encoder.add(pan(stranger(), count, 96, 96), times)
    source = open_source(read_media(encoder.close()), LIMITS)
    assert source.duration == seconds
    assert tuple(time for _, time in source.frames()) == times


@pytest.mark.parametrize(
    ("kind", "name", "width"), [(Mp4Encoder, "MP4", 17_000), (WebpEncoder, "WebP", 17_000), (GifEncoder, "GIF", 65_536)]
)
def test_a_size_that_the_format_does_not_support_is_refused(kind: type[Encoder], name: str, width: int) -> None:
    encoder = new(kind)
    with pytest.raises(MediaTooLarge, match=f"{width} x 4 pixels; {name} allows at most"):
        encoder.add(np.zeros((1, 4, width, 3), np.uint8), (Fraction(0),))
    encoder.discard()


@pytest.mark.parametrize("kind", [Mp4Encoder, WebpEncoder, GifEncoder])
def test_a_video_without_frames_is_refused(kind: type[Encoder]) -> None:
    encoder = new(kind)
    with pytest.raises(MediaError, match="the video has no frames"):
        encoder.close()
    encoder.discard()


@pytest.mark.parametrize("kind", [Mp4Encoder, WebpEncoder, GifEncoder])
def test_the_frames_are_counted_and_discarding_a_closed_encoder_keeps_the_file(kind: type[Encoder]) -> None:
    encoder = new(kind)
    encoder.add(pan(stranger(), 3, 64, 64), tuple(Fraction(i, 16) for i in range(3)))
    file = encoder.close()
    encoder.discard()
    assert encoder.frames == open_source(file, LIMITS).count == 3


@pytest.mark.parametrize("kind", [Mp4Encoder, GifEncoder])
def test_a_closed_file_takes_no_more_frames(kind: type[Encoder]) -> None:
    encoder = new(kind)
    frames = pan(stranger(), 1, 64, 64)
    encoder.add(frames, (Fraction(0),))
    encoder.close()
    with pytest.raises(MediaError, match="already finished"):
        encoder.add(frames, (Fraction(1),))


# The times of four frames, in units of 0.1 ms.
REPEATED = {
    "a time twice": (0, 1000, 1000, 2000),
    "a time three times": (0, 1000, 1000, 1000),
    "a step back": (0, 4000, 1500, 5000),
    "all at once": (700, 700, 700, 700),
    "closer than the format can say": (0, 1, 2, 3000),
}


@pytest.mark.parametrize("kind", ["mp4", "webp"])
@pytest.mark.parametrize("case", REPEATED)
def test_times_that_repeat_or_step_back_are_made_to_increase(kind: str, case: str) -> None:
    times = tuple(Fraction(time, 10_000) for time in REPEATED[case])
    frames = pan(stranger(), 4, 64, 48)
    encoder = Mp4Encoder(Fraction(10), "veryfast", 18) if kind == "mp4" else WebpEncoder(Fraction(10), 0)
    encoder.add(frames[:3], times[:3])
    encoder.add(frames[3:], times[3:])
    source = open_source(read_media(encoder.close()), LIMITS)
    shown = [time for _, time in source.frames()]
    # What is closer than a browser can show is left out of a WebP.
    assert len(shown) == (2 if kind == "webp" and case.startswith("closer") else 4)
    assert all(a < b for a, b in pairwise(shown))


def test_a_clock_keeps_times_that_increase_and_moves_the_others_by_one_tick() -> None:
    clock = Clock(1000)
    ticks = [clock.tick(Fraction(time, 1000)) for time in (5, 10, 10, 3, 12, 13, 40)]
    assert ticks == [5, 10, 11, 12, 13, 14, 40]
