"""What an idempotency key stands for, in every store of jobs."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serve.jobs.store.job_store import JobStore, KeyReused
from serve.jobs.store.record import Delivery, State
from tests.unit.serve.jobs.conftest import OpenStore
from tests.unit.serve.jobs.samples import create, end

HOOK = Delivery(url="https://example.org", id="w")


async def test_of_many_requests_with_one_key_one_makes_a_job(open_store: OpenStore) -> None:
    stores = [await open_store(), await open_store()]
    jobs = await asyncio.gather(*(create(stores[n % 2], idempotency_key="k", fingerprint="f") for n in range(50)))
    assert len({job.id for job in jobs}) == 1
    assert [job.id for job in await stores[0].active()] == [jobs[0].id]
    assert await stores[0].known([job.id for job in jobs]) == {jobs[0].id}


@pytest.mark.parametrize(
    ("fields", "differs"),
    [
        ({"fingerprint": "another"}, ("body",)),
        ({"fingerprint": "another", "media_type": "image/webp"}, ("`Accept`",)),
        ({"fingerprint": "another", "endpoint": "/wan26/i2v"}, ("path",)),
        ({"details": None}, ("path",)),
        ({"details": {"prompt": "b"}}, None),
        ({"webhook": None}, ("`Webhook-Url`",)),
        ({"webhook": replace(HOOK, url="https://example.org/2"), "media_type": "a/b"}, ("`Accept`", "`Webhook-Url`")),
        ({"webhook": replace(HOOK, id="another")}, None),
    ],
)
async def test_a_key_belongs_to_one_request_of_one_caller(
    store: JobStore, fields: dict[str, Any], differs: tuple[str, ...] | None
) -> None:
    request: dict[str, Any] = {"idempotency_key": "k", "fingerprint": "f", "details": {"prompt": "a"}, "webhook": HOOK}
    job = await create(store, **request)
    if differs is None:
        assert (await create(store, **request | fields)).id == job.id
    else:
        with pytest.raises(KeyReused) as reused:
            await create(store, **request | fields)
        assert reused.value.differs == differs
    other = await create(store, caller="bob", idempotency_key="k", fingerprint="another")
    assert other.id != job.id


@pytest.mark.parametrize(("state", "same"), [("failed", False), ("succeeded", True), ("cancelled", True)])
async def test_the_key_of_a_failed_job_may_be_used_again(store: JobStore, state: State, same: bool) -> None:
    job = await create(store, idempotency_key="k", fingerprint="f")
    await end(store, job, state)
    again = await create(store, idempotency_key="k", fingerprint="f")
    assert (again.id == job.id) == same
    # Deleting the failed job leaves the key to its successor.
    await store.delete(job.id)
    assert ((await create(store, idempotency_key="k", fingerprint="f")).id == again.id) != same
