"""Listeners of a job's events, over a store that counts how many read it at the same time."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from serve.jobs import follower
from serve.jobs.follower import Follower
from serve.jobs.record import Job, Progress
from serve.jobs.store import Event, JobStore, StoreUnavailable
from tests.unit.serve.jobs.job_builders import make_job, video

LIMIT_S = 60


class CountingStore:
    """A store with the events of one job."""

    def __init__(self) -> None:
        self.job, _ = make_job(video())
        self.kept: list[Event] = []
        self.reading = 0
        self.most_reading = 0
        self.away = 0
        self.deleted = False

    def add(self, percent: float, *, ended: bool = False) -> None:
        """Add an event."""
        job = replace(self.job, progress=Progress(stage="denoising", percent=percent))
        self.kept.append(Event(len(self.kept) + 1, replace(job, state="succeeded") if ended else job))

    async def events(self, job_id: str, after: int) -> Sequence[Event]:
        """Return the events after one."""
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        await asyncio.sleep(0)
        self.reading -= 1
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        return self.kept[after:]

    async def get(self, job_id: str) -> Job | None:
        """Return the job unless it was deleted."""
        return None if self.deleted else self.job


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_S", 0.001)
    monkeypatch.setattr(follower, "AWAY_S", 0.001)


async def listen(one: Follower, store: CountingStore, after: int = 0) -> list[int]:
    """Return the ids of all events that a listener gets."""
    return [event.id async for event in one.follow(store.job.id, after)]


def over(store: CountingStore) -> Follower:
    """Return a follower that reads ``store``."""
    return Follower(cast(JobStore, store))


async def test_an_ended_job_is_told_at_once() -> None:
    store = CountingStore()
    store.add(10)
    store.add(100, ended=True)
    assert await listen(over(store), store) == [1, 2]
    assert await listen(over(store), store, after=1) == [2]


async def test_all_listeners_get_every_event_in_order_and_share_one_reader() -> None:
    store, listeners = CountingStore(), 50
    one = over(store)
    store.add(1)
    heard: list[list[int]] = [[] for _ in range(listeners)]

    async def hear(ids: list[int]) -> None:
        async for event in one.follow(store.job.id, 0):
            ids.append(event.id)  # noqa: PERF401 -- the ids are looked at while they come

    tasks = [asyncio.ensure_future(hear(ids)) for ids in heard]
    async with asyncio.timeout(LIMIT_S):
        while not all(heard):  # noqa: ASYNC110 -- a listener tells nobody what it has heard
            await asyncio.sleep(0.001)
        store.most_reading = 0
        for percent in range(2, 20):
            store.add(percent)
            while any(len(ids) < len(store.kept) for ids in heard):  # noqa: ASYNC110 -- as above
                await asyncio.sleep(0.001)
        store.add(100, ended=True)
        await asyncio.gather(*tasks)
    assert heard == [list(range(1, 21))] * listeners
    assert store.most_reading == 1
    assert asyncio.all_tasks() == {cast("asyncio.Task[Any]", asyncio.current_task())}


async def test_a_listener_that_leaves_ends_the_reader_if_it_was_the_last() -> None:
    store = CountingStore()
    store.add(1)
    one = over(store)
    events = one.follow(store.job.id, 0)
    assert (await anext(events)).id == 1
    waiting = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0.01)
    waiting.cancel()
    await asyncio.wait({waiting})
    await events.aclose()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {cast("asyncio.Task[Any]", asyncio.current_task())}


async def test_a_store_that_is_away_for_a_while_costs_no_event() -> None:
    store = CountingStore()
    store.add(1)
    one = over(store)
    events = one.follow(store.job.id, 0)
    assert (await anext(events)).id == 1
    store.away = 3
    store.add(2)
    store.add(100, ended=True)
    async with asyncio.timeout(LIMIT_S):
        assert [event.id async for event in events] == [2, 3]


async def test_a_job_that_is_deleted_ends_its_events() -> None:
    store = CountingStore()
    store.add(1)
    events = over(store).follow(store.job.id, 0)
    assert (await anext(events)).id == 1
    store.deleted = True
    async with asyncio.timeout(LIMIT_S):
        assert [event.id async for event in events] == []
