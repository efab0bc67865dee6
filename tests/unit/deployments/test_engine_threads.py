"""Engine threads: a call waits for its slot, none is abandoned, and a silent one is noticed."""

import asyncio
import os
import threading
import time
from collections.abc import Callable

import pytest

from deployments import engine_threads
from deployments.engine_threads import BEHIND, FAILURES, CancelFlag, EngineThreads
from deployments.errors import (
    Cancelled,
    EngineBroken,
    GpuLost,
    NoFaceFound,
    NotFinite,
    ReplicaStalled,
    WeightsDamaged,
)


class Clock:
    """The time, which a test sets."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


async def test_threads_that_step_back_lower_their_own_priority_and_that_of_threads_they_start() -> None:
    def niceness(cancel: CancelFlag) -> tuple[int, int]:
        inner: list[int] = []
        helper = threading.Thread(target=lambda: inner.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id())))
        helper.start()
        helper.join()
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), inner[0]

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    own, started = await EngineThreads(1, 60, steps_back=True).run(niceness)
    assert own == started == min(19, before + BEHIND)
    assert await EngineThreads(1, 60).run(niceness) == (before, before)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@pytest.mark.slow
async def test_a_cancelled_call_is_stopped_and_waited_for_before_the_next_begins() -> None:
    threads = EngineThreads(1, 60)
    running: list[str] = []
    overlaps: list[list[str]] = []

    def work(name: str) -> Callable[[CancelFlag], None]:
        def call(cancel: CancelFlag) -> None:
            running.append(name)
            overlaps.append(list(running))
            try:
                for _ in range(20):
                    time.sleep(0.02)
                    cancel.check()
            finally:
                running.remove(name)

        return call

    first = asyncio.create_task(threads.run(work("first")))
    await asyncio.sleep(0.05)
    first.cancel()
    second = asyncio.create_task(threads.run(work("second")))
    with pytest.raises(asyncio.CancelledError):
        await first
    assert "first" not in running
    await second
    assert overlaps == [["first"], ["second"]]


async def test_as_many_calls_run_at_the_same_time_as_configured() -> None:
    threads = EngineThreads(2, 60)
    both = threading.Barrier(2, timeout=5)
    started: list[int] = []

    def call(number: int) -> Callable[[CancelFlag], int]:
        def work(_: CancelFlag) -> int:
            started.append(number)
            if number < 2:
                both.wait()  # passes only if two calls run at the same time
            return number

        return work

    assert await asyncio.gather(*(threads.run(call(number)) for number in range(4))) == [0, 1, 2, 3]
    assert sorted(started[:2]) == [0, 1]


@pytest.mark.slow
async def test_a_call_that_is_cancelled_twice_is_still_waited_for() -> None:
    threads = EngineThreads(1, 60)
    ended = threading.Event()

    def stubborn(_: CancelFlag) -> None:
        time.sleep(0.3)
        ended.set()

    task = asyncio.create_task(threads.run(stubborn))
    await asyncio.sleep(0.05)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_call_that_was_cancelled_twice_does_not_look_stalled_later() -> None:
    threads = EngineThreads(1, 0.0)  # whatever runs counts as stalled
    begun, released = threading.Event(), threading.Event()

    def stubborn(_: CancelFlag) -> None:
        begun.set()
        released.wait()

    task = asyncio.create_task(threads.run(stubborn))
    await asyncio.to_thread(begun.wait)
    with pytest.raises(ReplicaStalled):
        threads.check_health()
    for _ in range(2):
        task.cancel()
        for _ in range(3):  # so that the first one arrives before the second
            await asyncio.sleep(0)
    assert not task.done()
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    threads.check_health()


async def test_errors_reach_the_caller_and_free_the_slot() -> None:
    threads = EngineThreads(1, 60)

    def broken(_: CancelFlag) -> None:
        raise ValueError("no")

    for _ in range(3):
        with pytest.raises(ValueError, match="no"):
            await threads.run(broken)
    assert await threads.run(lambda _: 5) == 5


async def test_leaving_the_block_early_stops_the_call() -> None:
    threads = EngineThreads(1, 60)
    stopped = threading.Event()

    def work(cancel: CancelFlag) -> None:
        try:
            while True:
                time.sleep(0.01)
                cancel.check()
        finally:
            stopped.set()

    async with threads.start(work) as (future, _):
        await asyncio.sleep(0.05)
        assert not future.done()
    assert stopped.is_set()
    assert isinstance(future.exception(), Cancelled)


@pytest.mark.slow
async def test_an_engine_without_a_sign_of_life_is_found_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(engine_threads, "time", clock)
    threads = EngineThreads(1, 600)
    threads.check_health()
    begun, release = threading.Event(), threading.Event()

    def wedged(cancel: CancelFlag) -> None:
        cancel.check()
        begun.set()
        release.wait()

    task = asyncio.create_task(threads.run(wedged))
    await asyncio.to_thread(begun.wait)
    clock.now += 600
    threads.check_health()
    clock.now += 1
    with pytest.raises(ReplicaStalled, match="no sign of life from the engine for 601 s"):
        threads.check_health()
    release.set()
    await task
    threads.check_health()


def test_check_raises_once_the_flag_is_set() -> None:
    cancel = CancelFlag()
    cancel.check()
    cancel.set()
    with pytest.raises(Cancelled):
        cancel.check()


async def test_an_engine_that_fails_at_everything_is_unhealthy_until_a_call_succeeds() -> None:
    threads = EngineThreads(1, 60)

    def lost(_: CancelFlag) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    def refused(_: CancelFlag) -> None:
        raise NoFaceFound("face", "no face found")

    for _ in range(FAILURES - 1):
        with pytest.raises(RuntimeError):
            await threads.run(lost)
        with pytest.raises(NoFaceFound):
            await threads.run(refused)
    threads.check_health()
    with pytest.raises(RuntimeError):
        await threads.run(lost)
    with pytest.raises(EngineBroken, match="last calls of the engine failed"):
        threads.check_health()
    await threads.run(lambda _: None)
    threads.check_health()


async def test_one_lost_gpu_breaks_the_replica_at_once() -> None:
    threads = EngineThreads(1, stall_timeout_s=60)

    def lose(_: CancelFlag) -> None:
        raise GpuLost("a GPU of the replica has failed")

    with pytest.raises(GpuLost):
        await threads.run(lose)
    with pytest.raises(EngineBroken, match="a GPU of the replica has failed"):
        threads.check_health()


async def test_damaged_weights_break_the_replica_at_once_and_nan_only_if_it_stays() -> None:
    damaged = EngineThreads(1, stall_timeout_s=60)

    def fail(error: NotFinite) -> Callable[[CancelFlag], None]:
        def call(_: CancelFlag) -> None:
            raise error

        return call

    with pytest.raises(WeightsDamaged):
        await damaged.run(fail(WeightsDamaged("the weights are damaged: `a` holds NaN")))
    with pytest.raises(EngineBroken, match="the weights are damaged: `a` holds NaN"):
        damaged.check_health()
    threads = EngineThreads(1, stall_timeout_s=60)
    for number in range(FAILURES):
        threads.check_health()
        with pytest.raises(NotFinite):
            await threads.run(fail(NotFinite(f"the model has computed NaN, {number}")))
    with pytest.raises(EngineBroken, match=f"the model has computed NaN, {FAILURES - 1}"):
        threads.check_health()
