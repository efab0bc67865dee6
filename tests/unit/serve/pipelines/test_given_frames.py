"""A video starts from the first frames of a source, or from the last, and never from too few."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest

from deployments.errors import RequestRefused
from deployments.wire import Frames
from serve.media.decode.source import CHUNK, TimedFrames
from serve.pipelines.byte_budget import ByteBudget
from serve.pipelines.errors import MediaBusy
from serve.pipelines.given_frames import GivenFrames
from serve.pipelines.media_threads import MediaThreads
from serve.pipelines.source_reader import SourceReaders
from tests.unit.serve.pipelines.request_builders import video_request


class Film:
    """A source of ``count`` frames whose level is ten times their number."""

    def __init__(self, count: int, memory: ByteBudget) -> None:
        self.count = count
        self.opened: list[tuple[Any, ...]] = []
        self.sent = 0
        self.open_now = False
        self.reserved: list[int] = []
        self._memory = memory

    @asynccontextmanager
    async def open(self, field: str, media: bytes, caller: str, *, rate: Fraction) -> AsyncIterator["Film"]:
        self.opened.append((field, media, caller, rate))
        self.open_now = True
        try:
            yield self
        finally:
            self.open_now = False

    def claim_bytes(self, chunks: int) -> int:
        return 1_000 * chunks

    async def chunks(self) -> AsyncGenerator[TimedFrames, None]:
        for index in range(0, self.count, CHUNK):
            self.reserved.append(self._memory.reserved)
            numbers = range(index, min(index + CHUNK, self.count))
            self.sent += len(numbers)
            frames = np.stack([np.full((48, 64, 3), 10 * number, np.uint8) for number in numbers])
            yield TimedFrames(index, frames, tuple(Fraction(number, 8) for number in numbers))


class Given:
    """The frames that are given of a film, and what reading them left."""

    def __init__(self, count: int, *, total: int = 2**24) -> None:
        self.memory = ByteBudget(total, 0.01)
        self.film = Film(count, self.memory)
        self.frames = GivenFrames(cast(SourceReaders, self.film), self.memory, MediaThreads(1))

    async def read(self, **fields: Any) -> Frames | None:
        return await self.frames.read(video_request(**{"source": b"a film", **fields}), "caller")


def levels(frames: Frames | None) -> list[int]:
    assert frames is not None
    assert frames.dtype == np.uint8
    return [int(frame[0, 0, 0]) // 10 for frame in frames]


async def test_without_a_source_nothing_is_read() -> None:
    given = Given(9)
    assert await given.read(source=None) is None
    assert given.film.opened == []


async def test_the_first_frames_are_given_at_the_rate_of_the_new_video_and_no_more_are_read() -> None:
    given = Given(20)
    assert levels(await given.read(num_frames=9)) == list(range(9))
    assert given.film.opened == [("source", b"a film", "caller", Fraction(8))]
    assert given.film.sent == 12, "the third chunk is the last"
    assert not given.film.open_now


@pytest.mark.parametrize(("count", "expected"), [(20, [15, 16, 17, 18, 19]), (5, [0, 1, 2, 3, 4])])
async def test_the_last_frames_are_given_where_the_film_is_extended(count: int, expected: list[int]) -> None:
    given = Given(count)
    assert levels(await given.read(extend=5)) == expected
    assert given.film.sent == count


@pytest.mark.parametrize(("fields", "wanted"), [({"num_frames": 9}, 9), ({"extend": 6}, 6)])
async def test_a_film_with_too_few_frames_is_refused_with_what_to_do(fields: dict[str, int], wanted: int) -> None:
    given = Given(5)
    reason = rf"has 5 frames at 8 frames per second, but {wanted} are needed; send a longer one, or ask for fewer"
    with pytest.raises(RequestRefused, match=reason) as refused:
        await given.read(**fields)
    assert refused.value.field == "source"
    assert (given.memory.reserved, given.film.open_now) == (0, False)


@pytest.mark.parametrize(("width", "height"), [(64, 48), (32, 32), (128, 64)])
async def test_frames_have_the_size_of_the_new_video(width: int, height: int) -> None:
    frames = await Given(9).read(width=width, height=height)
    assert frames is not None
    assert frames.shape == (9, height, width, 3)


@pytest.mark.parametrize("extend", [0, 5])
async def test_memory_for_the_frames_is_reserved_while_they_are_read(extend: int) -> None:
    given = Given(9)
    await given.read(extend=extend)
    both = 2 * (extend or 9) * 3 * 64 * 48  # one by one, and then as an array
    assert set(given.film.reserved) == {2_000 + both}
    assert given.memory.reserved == 0


async def test_a_film_that_takes_more_than_half_of_the_memory_is_read_with_half() -> None:
    given = Given(9, total=2**17)
    await given.read()
    assert set(given.film.reserved) == {given.memory.half}


async def test_a_film_waits_for_memory_and_is_closed_where_there_is_none() -> None:
    given = Given(9)
    async with given.memory.reserve(2**24, "another"), given.memory.reserve(2**18, "another"):
        with pytest.raises(MediaBusy):
            await given.read(width=640, height=480)
    assert (given.film.sent, given.film.open_now) == (0, False)
