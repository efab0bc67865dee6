"""Turns: one call after another, none abandoned, and a silent one is found."""

import asyncio
import threading
import time

import pytest

from deployments.errors import Cancelled, EngineBroken, NoFaceFound, ReplicaStalled
from deployments.turns import FAILURES, Stop, Turns


async def test_a_cancelled_call_is_stopped_and_waited_for_before_the_next_begins() -> None:
    turns = Turns(1, 60)
    running: list[str] = []
    overlaps: list[list[str]] = []

    def work(name: str) -> object:
        def call(stop: Stop) -> None:
            running.append(name)
            overlaps.append(list(running))
            try:
                for _ in range(20):
                    time.sleep(0.02)
                    stop.check()
            finally:
                running.remove(name)

        return call

    first = asyncio.create_task(turns.run(work("first")))  # type: ignore[arg-type]
    await asyncio.sleep(0.05)
    first.cancel()
    second = asyncio.create_task(turns.run(work("second")))  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await first
    assert "first" not in running
    await second
    assert overlaps == [["first"], ["second"]]


async def test_a_call_that_is_cancelled_twice_is_still_waited_for() -> None:
    turns = Turns(1, 60)
    ended = threading.Event()

    def stubborn(_: Stop) -> None:
        time.sleep(0.3)
        ended.set()

    task = asyncio.create_task(turns.run(stubborn))
    await asyncio.sleep(0.05)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_errors_come_through_and_free_the_turn() -> None:
    turns = Turns(1, 60)

    def broken(_: Stop) -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await turns.run(broken)
    assert await turns.run(lambda _: 5) == 5


async def test_an_engine_without_a_sign_of_life_is_found_unhealthy() -> None:
    turns = Turns(1, 0.2)
    turns.check_health()
    release = threading.Event()

    def wedged(stop: Stop) -> None:
        stop.check()
        release.wait(5)

    task = asyncio.create_task(turns.run(wedged))
    await asyncio.sleep(0.05)
    turns.check_health()
    await asyncio.sleep(0.3)
    with pytest.raises(ReplicaStalled, match="no sign of life"):
        turns.check_health()
    release.set()
    await task
    turns.check_health()


def test_stop_raises_once_it_is_set() -> None:
    stop = Stop()
    stop.check()
    stop.set()
    with pytest.raises(Cancelled):
        stop.check()


async def test_an_engine_that_fails_at_everything_is_unhealthy_until_something_works() -> None:
    turns = Turns(1, 60)

    def lost(_: Stop) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def refused(_: Stop) -> None:
        raise NoFaceFound("face", "no face found")

    for _ in range(FAILURES - 1):
        with pytest.raises(RuntimeError):
            await turns.run(lost)
        with pytest.raises(NoFaceFound):
            await turns.run(refused)
    turns.check_health()
    with pytest.raises(RuntimeError):
        await turns.run(lost)
    with pytest.raises(EngineBroken, match="all failed"):
        turns.check_health()
    await turns.run(lambda _: None)
    turns.check_health()
