"""What the desk leaves in the stores when a job is not accepted, or perhaps is."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from serve.jobs.request import IN_MEMORY_BYTES
from serve.jobs.runner_handle import RunnerLost
from serve.jobs.store.job_store import OutcomeUnknown, QueueFull, StoreUnavailable
from serve.jobs.store.keys import request_key
from serve.jobs.store.record import Job
from serve.media.samples import clip, stranger
from serve.media.spool import Spool
from serve.pipelines.requests import SwapVideo
from serve.problems import Problem
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_config
from tests.unit.serve.jobs.bench import within
from tests.unit.serve.jobs.job_builders import FACE, make_job, video
from tests.unit.serve.local_jobs import LocalDesk


@pytest.fixture
async def desk() -> AsyncIterator[LocalDesk]:
    desk = LocalDesk(make_config(), FakeGraph())
    await desk.open()
    yield desk
    await desk.close()


@pytest.mark.parametrize("error", [QueueFull(3), StoreUnavailable("full")], ids=["a full queue", "a store that refuses"])
async def test_a_job_that_is_refused_leaves_no_request(
    desk: LocalDesk, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    async def refuse(job: Job, **_: Any) -> Job:
        raise error

    monkeypatch.setattr(desk.store, "create", refuse)
    with pytest.raises(type(error)):
        await desk.accept(*make_job(video()))
    assert await desk.files.list("requests") == []


async def test_a_job_that_the_store_may_have_got_keeps_its_request(desk: LocalDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs reads what it was sent when it goes on, and a sweeper finds the job."""
    create = desk.store.create

    async def without_answer(job: Job, **limits: Any) -> Job:
        await create(job, **limits)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(desk.store, "create", without_answer)
    job, request = make_job(video())
    with pytest.raises(OutcomeUnknown):
        await desk.accept(job, request)
    outcome = await desk.runner(job.id, None, None, None)
    assert outcome is not None
    assert outcome.job.state == "succeeded"


async def test_a_job_whose_caller_leaves_as_it_is_stored_keeps_its_request(
    desk: LocalDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def hang(job: Job, **_: Any) -> Job:
        begun.set()
        await asyncio.Event().wait()
        return job

    monkeypatch.setattr(desk.store, "create", hang)
    job, request = make_job(video())
    call = asyncio.ensure_future(desk.accept(job, request))
    await begun.wait()
    call.cancel()
    await asyncio.wait({call})
    assert await desk.files.size(request_key(job.id)) is not None


@pytest.mark.parametrize("durable", [False, True])
async def test_a_large_request_takes_no_space_here_once_it_is_stored(
    desk: LocalDesk, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    """Whoever waits for the job still refers to it."""
    called, let_go, run = asyncio.Event(), asyncio.Event(), desk.runner

    async def held(*call: Any) -> Any:
        called.set()
        await let_go.wait()
        return await run(*call)

    monkeypatch.setattr(desk, "_runs", held)
    job, request = make_job(SwapVideo(source=clip(stranger(), 5, 10) + bytes(IN_MEMORY_BYTES), face=[FACE]), durable=durable)
    assert isinstance(request, Spool)
    call = asyncio.ensure_future(desk.accept(job, request) if durable else desk.run(job, request))
    await within(called.wait())
    assert request.file.closed
    let_go.set()
    await within(call)
    ended = await desk.wait(job.id, 60)
    assert ended is not None
    assert ended.state == "succeeded"


async def test_a_result_that_died_with_its_runner_is_a_lost_replica(desk: LocalDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job has succeeded, but only the dead process had the bytes."""
    run = desk.runner

    async def die_at_the_end(job_id: str, *call: Any) -> Any:
        await run(job_id, *call)
        raise RunnerLost("killed")

    monkeypatch.setattr(desk, "_runs", die_at_the_end)
    with pytest.raises(Problem) as raised:
        await desk.run(*make_job(video(), durable=False))
    assert raised.value.status == 502
    assert "died before it was sent" in raised.value.detail
