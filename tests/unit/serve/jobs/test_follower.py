"""Listeners of a job's events, over a store that counts how many read it at the same time."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import pytest

from serve.jobs import follower, places
from serve.jobs.follower import Follower
from serve.jobs.places import Places
from serve.jobs.store.job_store import Event, JobStore, Queue, StoreUnavailable
from serve.jobs.store.record import Job, Progress
from serve.jobs.store.turns import Waiting
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
        self.broken = False
        self.deleted = False
        self.ahead = 0

    def queued(self) -> None:
        """Add an event of a job that waits."""
        self.kept.append(Event(len(self.kept) + 1, self.job))

    def add(self, percent: float, *, ended: bool = False) -> None:
        """Add an event."""
        job = replace(self.job, progress=Progress(stage="denoising", percent=percent))
        self.kept.append(Event(len(self.kept) + 1, replace(job, state="succeeded" if ended else "running")))

    async def events(self, job_id: str, after: int) -> Sequence[Event]:
        """Return the events after one."""
        self.reading += 1
        self.most_reading = max(self.most_reading, self.reading)
        await asyncio.sleep(0)
        self.reading -= 1
        if self.broken:
            raise ValueError("an event of another release")
        if self.away:
            self.away -= 1
            raise StoreUnavailable("away")
        # A store decodes what it reads, so that each read has objects of its own.
        return [Event(event.id, replace(event.job)) for event in self.kept if event.id > after]

    async def queue(self, slot: str) -> Queue:
        """Return a queue in which as many jobs are before this one as ``ahead`` says."""
        ids = [*(f"other-{number}" for number in range(self.ahead)), self.job.id]
        return Queue(tuple(Waiting(id=job_id, caller="a", slot=slot, number=0, running=False) for job_id in ids), (), None)

    async def get(self, job_id: str) -> Job | None:
        """Return the job unless it was deleted."""
        return None if self.deleted else self.kept[-1].job


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follower, "POLL_S", 0.001)
    monkeypatch.setattr(follower, "AWAY_S", 0.001)
    monkeypatch.setattr(places, "KEEP_S", 0)


async def listen(one: Follower, store: CountingStore, after: int = 0) -> list[int | None]:
    """Return the ids of all events that a listener gets."""
    return [event.id async for event in one.follow(store.job.id, after)]


def over(store: CountingStore) -> Follower:
    """Return a follower that reads ``store``."""
    return Follower(cast(JobStore, store), Places(cast(JobStore, store)))


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
    heard: list[list[int | None]] = [[] for _ in range(listeners)]

    async def hear(ids: list[int | None]) -> None:
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


@pytest.mark.parametrize("first_after", [0, 3])
async def test_listeners_share_the_events_that_were_there_before_them(first_after: int) -> None:
    """Each event is a whole record, so that copies for each listener would take much memory."""
    store = CountingStore()
    for percent in range(1, 6):
        store.add(percent)
    one = over(store)
    resumed = one.follow(store.job.id, first_after)
    begun = await anext(resumed)
    read: list[list[Job]] = []

    async def hear() -> None:
        events = one.follow(store.job.id, 0)
        read.append([(await anext(events)).job for _ in range(5)])
        await events.aclose()

    store.most_reading = 0
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*(hear() for _ in range(20)))
    assert [job.progress.percent for job in read[0]] == [1, 2, 3, 4, 5]
    assert all(job is ours for jobs in read for job, ours in zip(jobs, read[0], strict=True))
    assert begun.job is read[0][first_after]
    assert store.most_reading <= 2, "the reader of the feed, and one who reads what came before it"
    await resumed.aclose()


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


async def test_an_event_that_cannot_be_read_sends_listeners_away_and_not_later_ones(caplog: pytest.LogCaptureFixture) -> None:
    store = CountingStore()
    store.add(1)
    one = over(store)
    events = one.follow(store.job.id, 0)
    assert (await anext(events)).id == 1
    store.broken = True
    async with asyncio.timeout(LIMIT_S):
        assert [event.id async for event in events] == []
    assert "its events cannot be read" in caplog.text
    store.broken = False
    store.add(100, ended=True)
    async with asyncio.timeout(LIMIT_S):
        assert [event.id async for event in one.follow(store.job.id, 1)] == [2]


async def test_a_place_that_changes_is_told_to_all_without_an_id() -> None:
    store, listeners = CountingStore(), 20
    store.ahead = 3
    store.queued()
    one = over(store)
    heard: list[list[tuple[int | None, int | None]]] = [[] for _ in range(listeners)]

    async def hear(told: list[tuple[int | None, int | None]]) -> None:
        async for news in one.follow(store.job.id, 0):
            told.append((news.id, news.position))  # noqa: PERF401 -- they are looked at while they come

    tasks = [asyncio.ensure_future(hear(told)) for told in heard]
    async with asyncio.timeout(LIMIT_S):
        for count, ahead in ((1, 2), (2, 0)):
            while any(len(told) < count for told in heard):  # noqa: ASYNC110 -- a listener tells nobody what it has heard
                await asyncio.sleep(0.001)
            store.ahead = ahead
        while any(len(told) < 3 for told in heard):  # noqa: ASYNC110 -- as above
            await asyncio.sleep(0.001)
        store.add(1)
        store.add(100, ended=True)
        await asyncio.gather(*tasks)
    assert heard == [[(1, 3), (None, 2), (None, 0), (2, None), (3, None)]] * listeners


async def test_a_listener_that_resumes_in_the_queue_is_told_its_place() -> None:
    store = CountingStore()
    store.ahead = 5
    store.queued()
    events = over(store).follow(store.job.id, 1)
    async with asyncio.timeout(LIMIT_S):
        news = await anext(events)
    assert (news.id, news.position, news.job) == (None, 5, store.job)
    await events.aclose()


@pytest.mark.parametrize("wrong_first", [True, False])
@pytest.mark.parametrize("wrong", [4, 10**17])
async def test_an_id_that_the_job_has_not_had_counts_as_none_and_harms_no_other_listener(wrong: int, wrong_first: bool) -> None:
    store = CountingStore()
    for percent in range(1, 4):
        store.add(percent)
    one = over(store)
    heard: list[list[int | None]] = [[], []]

    async def hear(ids: list[int | None], after: int) -> None:
        async for event in one.follow(store.job.id, after):
            ids.append(event.id)  # noqa: PERF401 -- the ids are looked at while they come

    order = (wrong, 3) if wrong_first else (3, wrong)
    tasks = []
    async with asyncio.timeout(LIMIT_S):
        for ids, after in zip(heard, order, strict=True):
            tasks.append(asyncio.ensure_future(hear(ids, after)))
            for _ in range(20):  # the first one has begun to follow when the second one comes
                await asyncio.sleep(0)
        store.add(4)
        while not all(4 in ids for ids in heard):  # noqa: ASYNC110 -- a listener tells nobody what it has heard
            await asyncio.sleep(0.001)
        store.add(100, ended=True)
        await asyncio.gather(*tasks)
    assert heard[order.index(wrong)] == [1, 2, 3, 4, 5]
    assert heard[order.index(3)] == [4, 5]
    assert asyncio.all_tasks() == {cast("asyncio.Task[Any]", asyncio.current_task())}


@pytest.mark.parametrize("last_id", [2, 3])
async def test_a_job_that_has_ended_ends_its_events_though_none_is_left(last_id: int) -> None:
    """The end of a job can come between the reads of a feed, or before them."""
    store = CountingStore()
    store.add(10)
    store.add(20)
    one = over(store)
    listener = asyncio.ensure_future(listen(one, store, after=2))
    while not store.most_reading:  # noqa: ASYNC110 -- the store tells nobody that it is read
        await asyncio.sleep(0)
    store.add(100, ended=True)
    async with asyncio.timeout(LIMIT_S):
        assert await listener == [3]
        late = await listen(one, store, after=last_id)
    assert late == list(range(last_id + 1, 4))


async def test_a_listener_that_is_slow_misses_nothing_that_others_have_heard() -> None:
    """It takes its events one by one, while another begins further on and the job ends."""
    store = CountingStore()
    store.add(1)
    store.add(2)
    one = over(store)
    slow = one.follow(store.job.id, 0)
    ids = [(await anext(slow)).id]
    for percent in (3, 4):
        store.add(percent)
    quick = one.follow(store.job.id, 4)
    waiting = asyncio.ensure_future(anext(quick))
    await asyncio.sleep(0.01)
    async with asyncio.timeout(LIMIT_S):
        ids += [(await anext(slow)).id for _ in range(2)]
        for percent in (5, 6):
            store.add(percent)
        assert (await waiting).id == 5
        ids += [(await anext(slow)).id for _ in range(2)]
        store.add(100, ended=True)
        assert [event.id async for event in quick][-1] == 7
        ids += [event.id async for event in slow]
    assert ids == [1, 2, 3, 4, 5, 6, 7]
