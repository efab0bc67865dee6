from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest

from deployments.wire import Image
from serve.media.decode.source import CHUNK, Source, SourceLimits
from serve.media.errors import MediaTooLarge
from tests.unit.serve.media.make_media import decode_all


class Counted(Source):
    """Frame ``i`` is one pixel of brightness ``i``, shown at ``times[i]`` seconds."""

    def __init__(self, times: list[Fraction], duration: Fraction) -> None:
        super().__init__(len(times), duration, pixels=1)
        self._times = times

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        for i, time in enumerate(self._times):
            yield np.full((1, 1, 3), i, np.uint8), time


def shown(source: Source) -> list[int]:
    return [int(frame[0, 0, 0]) for frame in decode_all(source)[0]]


@pytest.mark.parametrize("count", [1, 3, 4, 5, 8])
def test_chunks_hold_every_frame_in_order(count: int) -> None:
    times = [Fraction(i, 16) for i in range(count)]
    chunks = list(Counted(times, Fraction(count, 16)).chunks())
    assert [chunk.index for chunk in chunks] == list(range(0, count, CHUNK))
    assert [len(chunk.frames) for chunk in chunks[:-1]] == [CHUNK] * (len(chunks) - 1)
    assert [int(frame[0, 0, 0]) for chunk in chunks for frame in chunk.frames] == list(range(count))
    assert [time for chunk in chunks for time in chunk.times] == times


@pytest.mark.parametrize(
    ("fps", "expected"), [(8, [0, 2, 4, 6]), (16, list(range(8))), (32, [i // 2 for i in range(16)]), (1, [0])]
)
def test_resampling_repeats_and_drops_frames_and_keeps_the_duration(fps: int, expected: list[int]) -> None:
    source = Counted([Fraction(i, 16) for i in range(8)], Fraction(1, 2))
    resampled = source.at_fps(Fraction(fps))
    assert resampled.count == len(expected)
    assert resampled.fps == fps
    assert shown(resampled) == expected
    assert decode_all(resampled)[1] == [Fraction(i, fps) for i in range(len(expected))]


def test_resampling_a_variable_rate_shows_the_frame_that_is_due() -> None:
    source = Counted([Fraction(5), Fraction(5) + Fraction(1, 10), Fraction(5) + Fraction(9, 10)], Fraction(1))
    assert source.fps == 3
    assert shown(source.at_fps(Fraction(5))) == [0, 1, 1, 1, 1]
    assert decode_all(source.at_fps(Fraction(5)))[1][0] == 5


def test_the_limits_are_inclusive() -> None:
    limits = SourceLimits(frames=10, seconds=2.5, pixels=100)
    limits.check_frames(10)
    limits.check_seconds(2.5)
    limits.check_pixels(10, 10)
    with pytest.raises(MediaTooLarge, match="at least 11 frames; at most 10"):
        limits.check_frames(11)
    with pytest.raises(MediaTooLarge, match=r"3\.0 seconds; at most 2\.5"):
        limits.check_seconds(3)
    with pytest.raises(MediaTooLarge, match="20 x 6 pixels; at most 100 pixels"):
        limits.check_pixels(20, 6)
