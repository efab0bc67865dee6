"""What a store holds at most, and that it counts what it holds."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from serve.jobs.store.job_store import JobStore, Kept
from serve.jobs.store.limits import KeptFull, Limits, NoRoom, ServiceFull, StorageFull
from serve.jobs.store.record import Job, State, StoredResult
from tests.unit.serve.jobs.samples import NOW, RESULT, new_job

OpenStore = Callable[[], Awaitable[JobStore]]


async def create(store: JobStore, limits: Limits | None = None, **fields: object) -> Job:
    """Add a job with a stored request of 100 bytes, unless ``fields`` say otherwise."""
    job = new_job(**{"request_bytes": 100, **fields})
    return await store.create(job, max_queued=100, limits=limits or Limits())


async def end(store: JobStore, job: Job, size: int | None, state: State = "succeeded", expires_at: float = NOW + 50) -> None:
    """End a job with a stored result of ``size`` bytes, or without one."""
    taken = await store.take("runner", job.id)
    assert taken is not None
    result = None if size is None else replace(RESULT, size=size)
    assert await store.finish(job.id, 1, state=state, at=NOW, expires_at=expires_at, result=result)


async def test_what_is_kept_is_counted_through_the_life_of_each_job(store: JobStore) -> None:
    """A request, then the result in its place, then nothing; each repetition counts once."""
    first, second = await create(store), await create(store, caller="bob", request_bytes=7)
    await store.create(first, max_queued=100)
    assert await store.kept() == Kept(107, 100)
    await end(store, first, 3000)
    assert await store.kept() == Kept(3007, 3000)
    assert await store.finish(first.id, 1, state="succeeded", at=NOW, expires_at=NOW, result=RESULT) is None
    ended = await store.get(first.id)
    assert ended is not None
    assert ended.result is not None
    handed_over = replace(ended, result=replace(ended.result, key=None))
    assert await store.update(handed_over, expected=ended)
    assert await store.kept() == Kept(7, 7)
    assert await store.update(ended, expected=handed_over)
    await store.delete(first.id)
    await store.delete(first.id)
    assert await store.kept() == Kept(7, 7)
    await store.request_cancel(second.id, at=NOW, expires_at=NOW + 9)
    assert await store.kept() == Kept(0, 0)


@pytest.mark.parametrize(
    ("state", "result"),
    [("failed", None), ("cancelled", None), ("succeeded", replace(RESULT, key=None, size=99))],
    ids=["failed", "cancelled", "handed over"],
)
async def test_an_ended_job_without_a_stored_result_keeps_nothing(
    store: JobStore, state: State, result: StoredResult | None
) -> None:
    job = await create(store)
    await store.take("runner", job.id)
    await store.finish(job.id, 1, state=state, at=NOW, expires_at=NOW + 9, result=result)
    assert await store.kept() == Kept(0, 0)


async def test_a_caller_who_keeps_too_much_is_told_when_there_is_room(store: JobStore) -> None:
    limits = Limits(max_kept_of_caller=1000)
    for size, expires_at in ((400, NOW + 70), (350, NOW + 60), (None, NOW + 5)):
        await end(store, await create(store, limits), size, expires_at=expires_at)
    await create(store, limits)  # 850 bytes are kept
    job = new_job(request_bytes=151)
    for ask in (store.look_up, store.create):
        with pytest.raises(KeptFull) as full:
            await ask(job, max_queued=100, limits=limits)
        assert (full.value.kept, full.value.limit, full.value.until) == (850, 1000, NOW + 60)
    assert await store.get(job.id) is None
    await create(store, limits, caller="bob")
    await create(store, limits, request_bytes=0)  # it keeps nothing
    await create(store, limits, request_bytes=150)


async def test_a_caller_whose_jobs_have_not_ended_has_no_time_to_wait_for(store: JobStore) -> None:
    await create(store)
    with pytest.raises(KeptFull) as full:
        await create(store, Limits(max_kept_of_caller=150))
    assert full.value.until is None


@pytest.mark.parametrize(
    ("limits", "error"),
    [(Limits(max_queued=3), ServiceFull), (Limits(max_kept=350), StorageFull)],
    ids=["queued", "kept"],
)
async def test_all_callers_together_have_limits(open_store: OpenStore, limits: Limits, error: type[NoRoom]) -> None:
    stores = [await open_store(), await open_store()]

    async def attempt(number: int) -> Job | NoRoom:
        try:
            return await create(stores[number % 2], limits, caller=f"caller-{number}")
        except NoRoom as refusal:
            return refusal

    answers = await asyncio.gather(*map(attempt, range(9)))
    jobs = [answer for answer in answers if isinstance(answer, Job)]
    assert len(jobs) == 3
    assert {type(answer) for answer in answers} == {Job, error}
    with pytest.raises(error):
        await stores[0].look_up(new_job(request_bytes=100), max_queued=100, limits=limits)
    # One that runs does not wait, and one that has ended keeps nothing here.
    await stores[1].take("runner", jobs[0].id)
    await stores[1].start("runner", slots={jobs[0].slot: 1}, max_running=1)
    if error is StorageFull:
        await stores[1].finish(jobs[0].id, 1, state="failed", at=NOW, expires_at=NOW + 9)
    await create(stores[0], limits)


async def test_a_look_adds_nothing_and_finds_the_job_of_a_key_whatever_is_full(store: JobStore) -> None:
    keyed = new_job(idempotency_key="k", fingerprint="f", request_bytes=100)
    assert await store.look_up(keyed, max_queued=1) is None
    assert await store.get(keyed.id) is None
    assert await store.kept() == Kept(0, 0)
    await store.create(keyed, max_queued=1)
    again = new_job(idempotency_key="k", fingerprint="f", request_bytes=100)
    found = await store.look_up(again, max_queued=1, limits=Limits(max_queued=1, max_kept=1, max_kept_of_caller=1))
    assert found is not None
    assert found.id == keyed.id
