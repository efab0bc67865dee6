"""What the desk leaves in the stores when a job is not accepted, or perhaps is."""

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, cast

import pytest

from deployments.flow_control import ConsumerEnd
from serve.jobs import front_desk
from serve.jobs.front_desk import FrontDesk
from serve.jobs.request import IN_MEMORY_BYTES
from serve.jobs.runner_handle import RunnerLost
from serve.jobs.store.job_store import OutcomeUnknown, StoreUnavailable
from serve.jobs.store.keys import request_key
from serve.jobs.store.limits import KeptFull, QueueFull, RequestTooLarge, ServiceFull, StorageFull
from serve.jobs.store.record import Job
from serve.media.samples import clip, stranger
from serve.media.spool import Spool
from serve.pipelines.requests import SwapVideo
from serve.problems import Problem
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_config
from tests.unit.serve.jobs.bench import within
from tests.unit.serve.jobs.job_builders import FACE, make_job, video
from tests.unit.serve.local_jobs import Lines, LocalDesk


@pytest.fixture
async def desk() -> AsyncIterator[LocalDesk]:
    desk = LocalDesk(make_config(), FakeGraph())
    await desk.open()
    yield desk
    await desk.close()


@pytest.mark.parametrize("durable", [True, False], ids=["accept", "run"])
@pytest.mark.parametrize("error", [QueueFull(3), StoreUnavailable("full")], ids=["a full queue", "a store that refuses"])
async def test_a_job_that_is_refused_leaves_no_request(
    desk: LocalDesk, monkeypatch: pytest.MonkeyPatch, error: Exception, durable: bool
) -> None:
    stored: list[str] = []
    put = desk.files.put

    async def note(key: str, data: Any) -> None:
        stored.append(key)
        await put(key, data)

    async def refuse(job: Job, **_: Any) -> Job:
        raise error

    monkeypatch.setattr(front_desk, "IN_MEMORY_BYTES", 0)  # so that every request is stored
    monkeypatch.setattr(desk.files, "put", note)
    monkeypatch.setattr(desk.store, "create", refuse)
    job, request = make_job(video(), durable=durable)
    with pytest.raises(type(error)):
        await (desk.accept(job, request) if durable else desk.run(job, request))
    assert stored == [request_key(job.id)]
    assert await desk.files.list("requests") == []


async def test_a_plain_request_whose_caller_leaves_before_its_turn_leaves_no_file(
    desk: LocalDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No Runner has it yet, so nobody but the desk can end it."""
    asked = asyncio.Event()

    async def no_runner(*_: Any, **__: Any) -> Any:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(front_desk, "IN_MEMORY_BYTES", 0)
    monkeypatch.setattr(desk, "_runs", no_runner)
    job, request = make_job(video(), durable=False)
    call = asyncio.ensure_future(desk.run(job, request))
    await asked.wait()
    assert await desk.files.size(request_key(job.id)) is not None
    call.cancel()
    await asyncio.wait({call})
    async with asyncio.timeout(60):
        while await desk.files.list("requests"):  # noqa: ASYNC110 -- the desk tells nobody that it has cleaned up
            await asyncio.sleep(0)
    record = await desk.store.get(job.id)
    assert record is not None
    assert record.state == "cancelled"


def with_settings(desk: LocalDesk, **settings: Any) -> FrontDesk:
    """Return another desk over the same stores."""
    jobs = make_config(jobs=settings).jobs
    return FrontDesk(desk.store, desk.files, desk.runner, cast(ConsumerEnd, Lines()), settings=jobs)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_queued_per_caller": 1}, QueueFull),
        ({"max_queued": 1}, ServiceFull),
        ({"max_kept_bytes_per_caller": 2**20}, RequestTooLarge),
        ({"max_kept_bytes_per_caller": 2**20 + 2**19}, KeptFull),
        ({"max_kept_bytes": 2**20}, StorageFull),
        ({"min_free_bytes": 2**60}, StorageFull),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
async def test_a_job_without_room_is_refused_before_its_file_is_written(
    desk: LocalDesk, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], error: type[Exception], durable: bool
) -> None:
    await desk.store.create(replace(make_job(video())[0], request_bytes=2**19), max_queued=9)
    put: list[str] = []

    async def record(key: str, _: object) -> None:
        put.append(key)

    monkeypatch.setattr(desk.files, "put", record)
    full = with_settings(desk, **settings)
    job, request = make_job(SwapVideo(source=bytes(IN_MEMORY_BYTES), face=[FACE]), durable=durable)
    with pytest.raises(error):
        await (full.accept(job, request) if durable else full.run(job, request))
    assert put == []
    assert await desk.store.get(job.id) is None


async def test_a_request_that_is_repeated_finds_its_job_whatever_is_full(desk: LocalDesk) -> None:
    """It asks for no room, and its caller must learn that the job was accepted."""
    job, request = make_job(video(), idempotency_key="k", fingerprint="f")
    await desk.accept(job, request)
    again, request = make_job(video(), idempotency_key="k", fingerprint="f")
    full = with_settings(desk, max_queued=1, max_kept_bytes_per_caller=1, max_kept_bytes=1, min_free_bytes=2**60)
    assert (await full.accept(again, request)).id == job.id
    assert await desk.files.size(request_key(again.id)) is None


async def test_what_jobs_keep_ends_with_their_files(desk: LocalDesk) -> None:
    """Requests and results are counted with the very sizes that they have in the file store."""

    async def stored() -> int:
        keys = [key for folder in ("requests", "results") for key, _ in await desk.files.list(folder)]
        return sum([await desk.files.size(key) or 0 for key in keys])

    job = await desk.accept(*make_job(video()))
    assert job.request_bytes > 0
    ended = await within(desk.wait(job.id, 60))
    assert ended is not None
    assert ended.result is not None
    assert (await desk.store.kept()).bytes == ended.result.size == await stored()
    await desk.delete(job.id, job.caller)
    assert (await desk.store.kept()).bytes == 0 == await stored()


async def test_the_large_result_of_a_plain_post_is_kept_until_its_caller_has_it(
    desk: LocalDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.jobs.execution.INLINE_BYTES", 10)
    outcome = await within(desk.run(*make_job(video(), durable=False)))
    assert outcome.job.result is not None
    assert (await desk.store.kept()).bytes == outcome.job.result.size
    await desk.fetch(outcome.job)
    assert (await desk.store.kept()).bytes == 0
    assert await desk.files.list("results") == []


@pytest.mark.parametrize(("durable", "kept_s"), [(True, 500), (False, 200)])
async def test_the_record_of_a_plain_post_is_kept_for_less_time(desk: LocalDesk, durable: bool, kept_s: float) -> None:
    brief = with_settings(desk, keep_s=500, keep_plain_s=200)
    job, _ = make_job(video(), durable=durable)
    await desk.store.create(job, max_queued=9)
    ended = await brief.cancel(job.id, job.caller)
    assert ended is not None
    assert ended.finished_at is not None
    assert ended.expires_at - ended.finished_at == pytest.approx(kept_s)


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
    outcome = await desk.runner(job.id, None, waiter=None, known_beat=None)
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

    async def held(*call: Any, **more: Any) -> Any:
        called.set()
        await let_go.wait()
        return await run(*call, **more)

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

    async def die_at_the_end(job_id: str, *call: Any, **more: Any) -> Any:
        await run(job_id, *call, **more)
        raise RunnerLost("killed")

    monkeypatch.setattr(desk, "_runs", die_at_the_end)
    with pytest.raises(Problem) as raised:
        await desk.run(*make_job(video(), durable=False))
    assert raised.value.status == 502
    assert "died before it was sent" in raised.value.detail


async def test_a_job_that_is_cancelled_and_deleted_at_once_is_no_fault(
    desk: LocalDesk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    called, asked = asyncio.Event(), asyncio.Event()
    run = desk.runner

    async def late(job_id: str, *call: Any, **more: Any) -> Any:
        """Be called while the job is there, and take it when it is not there any more."""
        called.set()
        await asked.wait()
        return await run(job_id, *call, **more)

    monkeypatch.setattr(desk, "_runs", late)
    job, request = make_job(video())
    with caplog.at_level(logging.INFO, "ray.serve"):
        await desk.accept(job, request)
        await within(called.wait())
        assert await desk.cancel(job.id, job.caller) is not None
        assert await desk.delete(job.id, job.caller) is not None
        (dispatched,) = desk._dispatched.values()
        asked.set()
        await within(dispatched)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert sum(f"job {job.id} of wan2.6 ended: cancelled" in message for message in caplog.messages) == 1


async def test_a_plain_request_whose_record_is_gone_is_told_so(desk: LocalDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(job_id: str, *call: Any, **more: Any) -> Any:
        await desk.store.request_cancel(job_id, at=0, expires_at=1)
        assert await desk.store.delete(job_id) is not None

    monkeypatch.setattr(desk, "_runs", gone)
    with pytest.raises(Problem) as raised:
        await desk.run(*make_job(video(), durable=False))
    assert (raised.value.status, raised.value.detail) == (502, "the record of this request is gone")
