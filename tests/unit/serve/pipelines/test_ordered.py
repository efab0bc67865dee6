"""Mapping a stream several items at a time, in order and within its bound."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from serve.pipelines.ordered import map_ordered


async def count(n: int) -> AsyncGenerator[int, None]:
    for i in range(n):
        yield i


async def collect(source: AsyncIterator[int], seen: list[int]) -> None:
    async for value in source:
        seen.append(value)  # noqa: PERF401 (what came before an error counts)


async def test_results_keep_their_order_though_later_items_finish_first() -> None:
    finished: list[int] = []
    events = [asyncio.Event() for _ in range(12)]

    async def square(i: int) -> int:
        if i % 3 < 2:  # each item waits for the next one, except the third of three
            await events[i + 1].wait()
        finished.append(i)
        events[i].set()
        return i * i

    async with asyncio.timeout(60):
        assert [value async for value in map_ordered(count(12), square, 3)] == [i * i for i in range(12)]
    assert finished == [2, 1, 0, 5, 4, 3, 8, 7, 6, 11, 10, 9]


async def test_no_more_than_ahead_items_are_started_before_one_is_taken() -> None:
    started: list[int] = []
    three = asyncio.Event()
    held = [0]

    async def same(i: int) -> int:
        started.append(i)
        held.append(len(started) - len(taken))
        if len(started) == 3:
            three.set()
        await three.wait()
        return i

    taken: list[int] = []
    async with asyncio.timeout(60):
        await collect(map_ordered(count(12), same, 3), taken)
    assert taken == list(range(12))
    assert max(held) == 3


async def test_an_error_is_passed_on_after_earlier_results_and_nothing_keeps_running() -> None:
    cancelled = []

    async def fail(i: int) -> int:
        if i == 1:
            raise ValueError("one")
        if i > 1:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(i)
                raise
        return i

    seen: list[int] = []
    with pytest.raises(ValueError, match="one"):
        await collect(map_ordered(count(9), fail, 3), seen)
    assert seen == [0]
    assert 2 in cancelled
    assert set(cancelled) <= {2, 3}
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_of_the_source_is_passed_on_after_the_items_before_it() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 0
        raise KeyError("source")

    async def same(i: int) -> int:
        return i

    seen: list[int] = []
    with pytest.raises(KeyError, match="source"):
        await collect(map_ordered(broken(), same, 2), seen)
    assert seen == [0]


async def test_closing_the_stream_cancels_what_is_in_progress_and_waits_for_it() -> None:
    ended: list[int] = []
    second_began = asyncio.Event()

    async def work(i: int) -> int:
        try:
            if i == 0:
                await second_began.wait()
            else:
                second_began.set()
                await asyncio.Event().wait()
        finally:
            ended.append(i)
        return i

    async with aclosing(map_ordered(count(9), work, 3)) as results:
        assert await anext(results) == 0
    assert 1 in ended
    assert len(asyncio.all_tasks()) == 1
