"""The webhooks that are due, in every store of jobs."""

from dataclasses import replace

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.record import Delivery
from tests.unit.serve.jobs.samples import NOW, create, end


async def test_webhooks_of_ended_jobs_are_sent_when_they_are_due(store: JobStore) -> None:
    webhook = Delivery(url="https://example.org", id="w")
    job = await create(store, webhook=webhook)
    await create(store, webhook=webhook)
    await end(store, await create(store))
    assert await store.due_webhooks(NOW + 99, 10) == []
    ended = await end(store, job)
    assert await store.due_webhooks(NOW, 10) == [ended]
    later = replace(ended, webhook=replace(webhook, attempts=1, next_at=NOW + 60))
    assert await store.update(later, expected=ended)
    assert not await store.update(replace(ended, seed=1), expected=ended)  # another sweeper was faster
    assert await store.due_webhooks(NOW + 59, 10) == []
    assert await store.due_webhooks(NOW + 60, 10) == [later]
    sent = replace(later, webhook=replace(webhook, attempts=2, state="delivered"))
    assert await store.update(sent, expected=later)
    assert await store.due_webhooks(NOW + 99, 10) == []
    assert await store.get(job.id) == sent


async def test_due_webhooks_are_read_in_parts_in_one_order(store: JobStore) -> None:
    webhook = Delivery(url="https://example.org", id="w")
    jobs = [await end(store, await create(store, webhook=webhook)) for _ in range(7)]
    late = replace(jobs[3], webhook=replace(webhook, next_at=NOW - 1))
    assert await store.update(late, expected=jobs[3])
    whole = list(await store.due_webhooks(NOW, 99))
    assert whole[-1] == late
    assert {job.id for job in whole} == {job.id for job in jobs}
    parts = list(await store.due_webhooks(NOW, 3))
    while part := await store.due_webhooks(NOW, 3, after=parts[-1]):
        parts += part
    assert parts == whole
    assert await store.due_webhooks(NOW - 2, 99, after=whole[0]) == whole[1:-1]  # the late one is not due
    # One that is due no more, or gone, has none behind it; whoever reads begins anew.
    sent = replace(whole[0], webhook=replace(webhook, state="delivered"))
    assert await store.update(sent, expected=whole[0])
    assert await store.due_webhooks(NOW, 99, after=whole[0]) == []
    await store.delete(whole[1].id)
    assert await store.due_webhooks(NOW, 99, after=whole[1]) == []
    assert list(await store.due_webhooks(NOW, 99)) == whole[2:]
