"""Whenever and however often a call of the Runner is cancelled, its job ends and says so."""

import asyncio
from typing import Any

import pytest

from serve.jobs import job_runner
from serve.media.spool import read_media
from tests.unit.serve.http.service import HeldVideoModel
from tests.unit.serve.jobs.bench import Bench, within
from tests.unit.serve.jobs.job_builders import make_job, video
from tests.unit.serve.local_jobs import Line


async def test_a_call_that_is_cancelled_ends_a_job_that_is_not_durable(bench: Bench) -> None:
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    model = bench.graph.wan26
    assert isinstance(model, HeldVideoModel)
    model.gate = asyncio.Event()
    call = asyncio.ensure_future(bench.one.run(job.id, read_media(stored), waiter=Line()))  # type: ignore[arg-type]
    await within(model.begun.wait())
    call.cancel()
    await within(asyncio.wait({call}))
    assert (await bench.record(job)).state == "cancelled"
    assert model.stopped


async def test_a_call_that_is_cancelled_again_while_it_ends_still_records_the_end(bench: Bench) -> None:
    """Serve cancels a call twice: see ``deployments.task_end``."""
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    model = bench.graph.wan26
    assert isinstance(model, HeldVideoModel)
    model.gate = asyncio.Event()
    call = asyncio.ensure_future(bench.one.run(job.id, read_media(stored), waiter=Line()))  # type: ignore[arg-type]
    await within(model.begun.wait())
    async with asyncio.timeout(60):
        while not call.done():
            call.cancel()
            await asyncio.sleep(0)
    assert call.cancelled()
    assert (await bench.record(job)).state == "cancelled"
    assert model.stopped


@pytest.mark.parametrize("reason", ["left", "cancelled"])
async def test_a_call_that_is_cancelled_while_it_stops_for_another_reason_still_records_its_end(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """The connection to a caller can close before Serve's cancel comes."""
    stopping, let_go = asyncio.Event(), asyncio.Event()
    end = job_runner._end

    async def slowly(work: "asyncio.Future[Any]") -> None:
        stopping.set()
        await let_go.wait()
        await end(work)

    monkeypatch.setattr(job_runner, "_end", slowly)
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    model, line = bench.graph.wan26, Line()
    assert isinstance(model, HeldVideoModel)
    model.gate = asyncio.Event()
    call = asyncio.ensure_future(bench.one.run(job.id, read_media(stored), waiter=line))  # type: ignore[arg-type]
    await within(model.begun.wait())
    if reason == "left":
        line.close()
    else:
        bench.one._held[job.id].stopped.set_result("cancelled")
    await within(stopping.wait())
    call.cancel()
    await asyncio.sleep(0)
    assert not call.done()
    let_go.set()
    await within(asyncio.wait({call}))
    assert call.cancelled()
    assert (await bench.record(job)).state == "cancelled"
    assert model.stopped


async def test_a_cancelled_job_whose_runner_was_lost_ends_as_cancelled(bench: Bench) -> None:
    for durable in (True, False):
        job, _ = make_job(video(), durable=durable)
        await bench.store.create(job, max_queued=100)
        assert await bench.store.take("lost", job.id, known_beat=None) is not None
        (started,) = await bench.store.start("lost", slots={job.slot: 1}, max_running=1)
        assert started.id == job.id
        await bench.desk.cancel(job.id, "ada")
        outcome = await within(bench.one.run(job.id, known_beat=(await bench.record(job)).beat))
        assert outcome is not None
        assert (outcome.job.state, outcome.job.problem) == ("cancelled", None)
