"""What every store of jobs has to do."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.limits import QueueFull
from serve.jobs.store.record import Delivery, Job, Lease, Progress, State
from tests.unit.serve.jobs.samples import NOW, RESULT, create, end, new_job, run

OpenStore = Callable[[], Awaitable[JobStore]]
SLOTS = {"wan26": 1}


async def test_a_job_comes_back_as_it_was_created(store: JobStore) -> None:
    job = new_job(
        seed=7,
        idempotency_key="k",
        fingerprint="f",
        details={"prompt": "a \ud800 lone surrogate", "n": [1, None]},
        webhook=Delivery(url="https://example.org", id="w"),
    )
    assert await create(store, job) == job
    assert await store.get(job.id) == job
    assert [(event.id, event.job) for event in await store.events(job.id, 0)] == [(1, job)]
    assert await store.get("0" * 32) is None
    assert await store.events("0" * 32, 0) == []


async def test_creating_a_job_again_changes_nothing(store: JobStore) -> None:
    job = await create(store)
    await store.take("runner", job.id)
    again = await create(store, job)
    assert again.attempt == 1
    assert len(await store.active()) == 1


async def test_the_key_of_an_expired_job_may_be_used_again(store: JobStore) -> None:
    job = await create(store, idempotency_key="k", fingerprint="f")
    await end(store, job, expires_at=NOW + 10)
    assert (await create(store, idempotency_key="k", fingerprint="g", created_at=NOW + 10)).id != job.id


async def test_a_caller_may_have_so_many_jobs_queued(open_store: OpenStore) -> None:
    stores = [await open_store(), await open_store()]

    async def attempt(number: int) -> Job | QueueFull:
        try:
            return await stores[number % 2].create(new_job(), max_queued=5)
        except QueueFull as refusal:
            return refusal

    jobs = [made for made in await asyncio.gather(*map(attempt, range(20))) if isinstance(made, Job)]
    assert len(jobs) == 5
    with pytest.raises(QueueFull) as full:
        await stores[0].create(new_job(), max_queued=5)
    assert full.value.queued == 5
    await stores[0].create(new_job(caller="bob"), max_queued=5)
    # One that runs is not queued any more, and one whose Runner is gone is queued again.
    await run(stores[0], jobs[0])
    await stores[0].create(new_job(), max_queued=5)


async def test_one_of_many_runners_gets_the_lease(open_store: OpenStore) -> None:
    stores = [await open_store(), await open_store()]
    job = await create(stores[0])
    takes = await asyncio.gather(*(stores[n % 2].take(f"runner-{n}", job.id) for n in range(20)))
    [taken] = [take for take in takes if take]
    assert (taken.attempt, taken.state) == (1, "queued")
    assert (await stores[1].get(job.id)) == taken


async def test_a_lease_is_given_away_only_if_its_owner_is_silent(store: JobStore) -> None:
    job = await create(store)
    first = await store.take("runner-1", job.id)
    assert first is not None
    await store.start("runner-1", slots=SLOTS, max_running=1)
    await store.progress(job.id, 1, [Progress(stage="denoising", step=3, percent=30.0)])
    assert await store.take("runner-2", job.id) is None
    other = await create(store)
    assert await store.take("runner-1", other.id) is not None
    assert await store.beat("runner-1", {job.id: 1, other.id: 1, "gone": 1}) == {
        job.id: Lease(state="running", cancel_requested=False),
        other.id: Lease(state="queued", cancel_requested=False),
    }
    now = await store.get(job.id)
    assert now is not None
    assert now.beat == first.beat + 1
    assert await store.take("runner-2", job.id, known_beat=first.beat) is None
    taken = await store.take("runner-2", job.id, known_beat=first.beat + 1)
    assert taken is not None
    assert (taken.owner, taken.attempt, taken.state, taken.progress) == ("runner-2", 2, "queued", Progress())
    assert taken.started_at is None
    assert taken.beat > first.beat + 1
    # Listeners learn that it starts again.
    assert (await store.events(job.id, 0))[-1].job == taken


async def test_a_late_writer_is_refused(store: JobStore) -> None:
    job = await create(store)
    first = await run(store, job, "runner-1")
    await store.take("runner-2", job.id, known_beat=first.beat)
    before = await store.get(job.id)
    events = await store.events(job.id, 0)
    assert not await store.progress(job.id, 1, [Progress(stage="denoising")])
    assert await store.finish(job.id, 1, state="succeeded", at=NOW, expires_at=NOW) is None
    assert await store.beat("runner-1", {job.id: 1}) == {}
    assert await store.beat("runner-1", {job.id: 2}) == {}
    assert await store.beat("runner-2", {job.id: 1}) == {}
    assert (await store.get(job.id), await store.events(job.id, 0)) == (before, events)
    await end(store, job)
    assert not await store.progress(job.id, 2, [Progress(stage="denoising")])
    assert await store.beat("runner-2", {job.id: 2}) == {}
    assert await store.take("runner-3", job.id) is None


async def test_nobody_writes_to_a_job_that_is_gone(store: JobStore) -> None:
    job = new_job()
    assert not await store.progress(job.id, 0, [Progress(stage="denoising")])
    assert await store.finish(job.id, 0, state="succeeded", at=NOW, expires_at=NOW) is None
    assert await store.take("runner", job.id) is None
    assert await store.request_cancel(job.id, at=NOW, expires_at=NOW) is None
    assert await store.delete(job.id) is None
    assert await store.beat("runner", {job.id: 0}) == {}
    assert not await store.update(job, expected=job)


async def test_exactly_one_end_wins(open_store: OpenStore) -> None:
    stores = [await open_store(), await open_store()]
    job = await create(stores[0])
    await run(stores[0], job)
    states: list[State] = ["succeeded", "failed", "cancelled", "succeeded"]
    ends = await asyncio.gather(
        *(
            stores[n % 2].finish(job.id, 1, state=state, at=NOW, expires_at=NOW + 1, result=RESULT, problem={"n": n})
            for n, state in enumerate(states)
        )
    )
    [ended] = [outcome for outcome in ends if outcome]
    assert await stores[1].get(job.id) == ended
    assert (ended.owner, ended.result, ended.finished_at, ended.expires_at) == ("", RESULT, NOW, NOW + 1)
    assert [event.job.state for event in await stores[0].events(job.id, 0)] == ["queued", "starting", ended.state]
    assert await stores[0].active() == []


async def test_only_a_runner_starts_its_own_jobs_in_their_turn(store: JobStore) -> None:
    ann = [await create(store, caller="ann") for _ in range(3)]
    bob = await create(store, caller="bob")
    other = await create(store, slot="film-swap")
    for job in ann[:2]:
        await store.take("runner-1", job.id)
    for job in (ann[2], bob, other):
        await store.take("runner-2", job.id)
    queue = await store.queue("wan26")
    assert [job.id for job in queue.waiting] == [ann[0].id, bob.id, ann[1].id, ann[2].id]
    assert (queue.running, queue.pace_s) == ((), None)
    assert [job.id for job in (await store.queue("film-swap")).waiting] == [other.id]
    assert await store.start("runner-2", slots=SLOTS, max_running=1) == []
    [started] = await store.start("runner-1", slots=SLOTS, max_running=1)
    assert (started.id, started.state, started.progress.stage) == (ann[0].id, "starting", "starting")
    assert started.started_at is not None
    assert await store.get(ann[0].id) == started
    queue = await store.queue("wan26")
    assert (queue.running, [job.id for job in queue.waiting]) == ((ann[0].id,), [bob.id, ann[1].id, ann[2].id])
    assert await store.start("runner-2", slots=SLOTS, max_running=1) == []
    await end(store, started)
    # Ann's next job waits for bob's first one.
    assert await store.start("runner-1", slots=SLOTS, max_running=1) == []
    assert [job.id for job in await store.start("runner-2", slots=SLOTS | {"film-swap": 2}, max_running=1)] == [
        bob.id,
        other.id,
    ]


async def test_starts_of_several_runners_keep_the_limit(open_store: OpenStore) -> None:
    stores = [await open_store(), await open_store()]
    for number in range(12):
        job = await create(stores[0], caller=f"caller-{number % 4}")
        await stores[0].take(f"runner-{number % 2}", job.id)
    starts = await asyncio.gather(
        *(stores[n % 2].start(f"runner-{n % 2}", slots={"wan26": 3}, max_running=1) for n in range(10))
    )
    started = [job for jobs in starts for job in jobs]
    assert len({job.id for job in started}) == len(started) == 3
    assert len({job.caller for job in started}) == 3


async def test_a_job_that_nobody_has_taken_holds_up_no_other(store: JobStore) -> None:
    await create(store, caller="ann")
    job = await create(store, caller="bob")
    await store.take("runner", job.id)
    assert [started.id for started in await store.start("runner", slots=SLOTS, max_running=1)] == [job.id]


async def test_a_started_job_does_not_queue_again(store: JobStore) -> None:
    job = await run(store, await create(store))
    await store.progress(job.id, 1, [Progress(stage="queued")])
    assert await store.start("runner", slots={"wan26": 5}, max_running=5) == []
    found = await store.get(job.id)
    assert found is not None
    assert found.state == "starting"


async def test_steps_are_events_in_order_without_gaps(open_store: OpenStore) -> None:
    stores = [await open_store(), await open_store()]
    job = await run(stores[0], await create(stores[0]))

    async def write(number: int) -> bool:
        steps = [Progress(stage="denoising", step=number, steps=part, percent=1.5) for part in range(3)]
        return await stores[number % 2].progress(job.id, 1, steps)

    assert all(await asyncio.gather(*map(write, range(10))))
    events = await stores[0].events(job.id, 0)
    assert [event.id for event in events] == list(range(1, 33))
    steps = [(event.job.progress.step, event.job.progress.steps) for event in events[2:]]
    assert sorted(steps) == [(step, part) for step in range(10) for part in range(3)]
    assert [part for _, part in steps] == [0, 1, 2] * 10  # those of one call stay together
    assert {event.job.state for event in events[2:]} == {"running"}
    assert [event.id for event in await stores[1].events(job.id, 30)] == [31, 32]
    assert await stores[1].events(job.id, 32) == []
    assert events[-1].job == await stores[1].get(job.id)
    assert await stores[0].progress(job.id, 1, [])
    assert await stores[1].events(job.id, 32) == []


async def test_a_queued_job_is_cancelled_at_once(store: JobStore) -> None:
    job = await create(store)
    await store.take("runner", job.id)
    cancelled = await store.request_cancel(job.id, at=NOW + 1, expires_at=NOW + 2)
    assert cancelled is not None
    assert (cancelled.state, cancelled.finished_at, cancelled.expires_at) == ("cancelled", NOW + 1, NOW + 2)
    assert await store.request_cancel(job.id, at=NOW + 7, expires_at=NOW + 8) == cancelled
    assert await store.get(job.id) == cancelled
    assert await store.beat("runner", {job.id: 1}) == {}
    assert await store.start("runner", slots=SLOTS, max_running=1) == []
    assert [event.job.state for event in await store.events(job.id, 0)] == ["queued", "cancelled"]


async def test_the_owner_of_a_running_job_is_asked_to_cancel_it(store: JobStore) -> None:
    job = await run(store, await create(store))
    asked = await store.request_cancel(job.id, at=NOW, expires_at=NOW)
    assert asked == replace(job, cancel_requested=True)
    assert await store.beat("runner", {job.id: 1}) == {job.id: Lease(state="starting", cancel_requested=True)}
    ended = await end(store, job, "cancelled")
    assert await store.request_cancel(job.id, at=NOW, expires_at=NOW) == ended


async def test_pages_stay_in_place_while_jobs_come_and_go(store: JobStore) -> None:
    jobs = [await create(store, created_at=NOW) for _ in range(7)]
    await create(store, caller="bob")
    newest = jobs[::-1]
    first = await store.list("ann", state=None, limit=3, cursor=None)
    assert [job.id for job in first.jobs] == [job.id for job in newest[:3]]
    await create(store)
    await end(store, newest[2])
    await store.delete(newest[2].id)  # the one that the cursor stands on
    await end(store, newest[4])
    await store.delete(newest[4].id)
    second = await store.list("ann", state=None, limit=3, cursor=first.cursor)
    assert [job.id for job in second.jobs] == [newest[n].id for n in (3, 5, 6)]
    assert second.cursor is None
    assert (await store.list("nobody", state=None, limit=3, cursor=None)).jobs == ()
    after = await store.cursor_after(newest[3].id, "ann")
    assert [job.id for job in (await store.list("ann", state=None, limit=3, cursor=after)).jobs] == [newest[5].id, newest[6].id]
    for job_id, caller in ((newest[3].id, "bob"), (newest[2].id, "ann"), ("0" * 32, "ann")):
        assert await store.cursor_after(job_id, caller) is None


async def test_jobs_are_listed_by_state(store: JobStore) -> None:
    jobs = [await create(store) for _ in range(4)]
    await end(store, jobs[0])
    await end(store, jobs[2])
    await run(store, jobs[1])
    page = await store.list("ann", state="succeeded", limit=1, cursor=None)
    assert [job.id for job in page.jobs] == [jobs[2].id]
    page = await store.list("ann", state="succeeded", limit=1, cursor=page.cursor)
    assert ([job.id for job in page.jobs], page.cursor) == ([jobs[0].id], None)
    assert [job.id for job in (await store.list("ann", state="starting", limit=9, cursor=None)).jobs] == [jobs[1].id]
    await store.progress(jobs[1].id, 1, [Progress(stage="denoising")])
    assert [job.id for job in (await store.list("ann", state="running", limit=9, cursor=None)).jobs] == [jobs[1].id]
    assert (await store.list("ann", state="starting", limit=9, cursor=None)).jobs == ()


@pytest.mark.parametrize("cursor", ["", "x", "-1", "1.5", "9" * 30, "\u0661", "1\n", " 1"])
async def test_a_malformed_cursor_is_told(store: JobStore, cursor: str) -> None:
    with pytest.raises(ValueError, match="cursor"):
        await store.list("ann", state=None, limit=3, cursor=cursor)


async def test_ended_jobs_expire_and_are_remembered(store: JobStore) -> None:
    kept, ended, queued = [await create(store, expires_at=NOW) for _ in range(3)]
    await end(store, kept, expires_at=NOW + 20)
    await end(store, ended, expires_at=NOW + 10)
    assert await store.expired(NOW + 9, 10) == []
    assert [job.id for job in await store.expired(NOW + 10, 10)] == [ended.id]
    assert [job.id for job in await store.expired(NOW + 99, 1)] == [ended.id]
    assert not await store.was_deleted(ended.id, "ann")
    deleted = await store.delete(ended.id)
    assert deleted is not None
    assert deleted.id == ended.id
    assert await store.was_deleted(ended.id, "ann")
    assert not await store.was_deleted(ended.id, "bob")
    assert await store.get(ended.id) is None
    assert await store.events(ended.id, 0) == []
    assert await store.delete(ended.id) is None
    assert await store.delete(queued.id) is None
    assert [job.id for job in await store.expired(NOW + 99, 10)] == [kept.id]
    assert await store.known([kept.id, ended.id, queued.id, "x"]) == {kept.id, queued.id}
    assert await store.known([]) == frozenset()


async def test_only_ended_jobs_are_replaced(store: JobStore) -> None:
    job = await create(store)
    assert not await store.update(replace(job, seed=1), expected=job)
    assert await store.get(job.id) == job


async def test_a_caller_spends_so_many_requests_a_minute(open_store: OpenStore) -> None:
    stores = [await open_store(), await open_store()]
    spent = await asyncio.gather(*(stores[n % 2].spend("ann", per_minute=4, now=120.0 + n) for n in range(8)))
    assert sorted(one.remaining for one in spent if one.allowed) == [0, 1, 2, 3]
    assert [one.remaining for one in spent if not one.allowed] == [0] * 4
    assert [one.reset_s for one in spent] == [60.0 - n for n in range(8)]
    assert (await stores[0].spend("bob", per_minute=4, now=121.0)).remaining == 3
    assert (await stores[0].spend("ann", per_minute=4, now=180.0)).remaining == 3
    assert not (await stores[0].spend("ann", per_minute=0, now=180.0)).allowed


async def test_a_store_that_is_opened_again_has_its_jobs(open_store: OpenStore) -> None:
    first = await open_store()
    job = await create(first)
    await first.close()
    assert await (await open_store()).get(job.id) == job
