"""The places of queued jobs, over a store that counts its readers."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serve.jobs import places
from serve.jobs.places import Places
from serve.jobs.store.job_store import Queue
from serve.jobs.store.record import Job
from serve.jobs.store.turns import Waiting
from tests.unit.serve.jobs.samples import new_job


class OneQueue:
    """A store with one queue."""

    def __init__(self, *jobs: Job) -> None:
        self.jobs = list(jobs)
        self.reads = 0

    async def queue(self, slot: str) -> Queue:
        """Return the queue."""
        self.reads += 1
        await asyncio.sleep(0)
        waiting = [Waiting(id=job.id, caller="a", slot=slot, number=n, running=False) for n, job in enumerate(self.jobs)]
        return Queue(tuple(waiting), (), None)


def over(store: Any) -> Places:
    """Return the places of a store."""
    return Places(store)


async def test_many_who_ask_at_once_share_one_read() -> None:
    jobs = [new_job() for _ in range(3)]
    store = OneQueue(*jobs)
    of = over(store).of
    assert await asyncio.gather(*(of(job) for job in jobs * 20)) == [0, 1, 2] * 20
    assert store.reads == 1


async def test_a_job_that_has_just_come_is_found_at_once() -> None:
    first, second = new_job(), new_job()
    store = OneQueue(first)
    of = over(store).of
    assert await of(first) == 0
    store.jobs.append(second)
    assert (await of(second), await of(first)) == (1, 0)


async def test_an_order_is_read_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "KEEP_S", 0)
    first, second = new_job(), new_job()
    store = OneQueue(first, second)
    of = over(store).of
    assert await of(second) == 1
    store.jobs.remove(first)
    assert (await of(second), await of(first)) == (0, None)


async def test_a_job_that_is_not_queued_has_no_place_and_costs_no_read() -> None:
    job = new_job()
    store = OneQueue(job)
    assert await over(store).of(replace(job, state="running")) is None
    assert store.reads == 0
