"""Metrics of jobs: the state of the store, webhooks, and jobs that do not succeed."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serve.config import AppConfig, JobSettings
from serve.jobs.open_store import open_stores
from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.store.keys import request_key
from serve.jobs.store.record import Job
from serve.jobs.sweeper import OVERDUE_S, Sweeper
from serve.telemetry import metrics
from tests.unit.recorded_metrics import recorded_metrics
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import HeldVideoModel, make_config
from tests.unit.serve.jobs.bench import Bench, begun, within
from tests.unit.serve.jobs.job_builders import make_job, video
from tests.unit.serve.jobs.webhook_receiver import DueJobs, ended_job, receiving, settings, status
from tests.unit.serve.jobs.webhooks.senders import Clock, send_due, sender, url_of
from tests.unit.serve.local_jobs import running_loops
from tests.unit.serve.loop_clock import LoopClock


async def ignore(job: Job) -> None:
    """Take up nothing."""


async def test_a_sweeper_reports_what_has_not_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, files = open_stores(JobSettings(folder=tmp_path / "jobs"), "films")
    await store.open()
    sweeper = Sweeper(store, files, lease_s=15, take_up=ignore)
    now = time.time()

    async def add(created_at: float, deadline_at: float) -> Job:
        job, _ = make_job(video(), created_at=created_at, deadline_at=deadline_at)
        return await store.create(job, max_queued=100)

    try:
        await add(now - 500, now + 60)
        await add(now - 100, now - OVERDUE_S - 10)
        started = await add(now - 900, now + 60)
        await store.take("one", started.id)
        await store.start("one", slots={started.slot: 1}, max_running=1)
        with recorded_metrics() as recorded:
            await sweeper.look()
        assert [recorded.values(metrics.JOBS, state=state) for state in ("queued", "starting", "running")] == [[2], [1], [0]]
        assert recorded.values(metrics.JOBS_OVERDUE) == [1]
        assert recorded.values(metrics.OLDEST_QUEUED_SECONDS) == [pytest.approx(500, abs=60)]
        assert recorded.values(metrics.STORE_REACHABLE) == [1]

        async def away() -> list[Job]:
            raise StoreUnavailable("away")

        monkeypatch.setattr(store, "active", away)
        with recorded_metrics() as recorded:
            await sweeper.look()
        assert recorded.names() == {metrics.STORE_REACHABLE.name}
        assert recorded.values(metrics.STORE_REACHABLE) == [0]
    finally:
        await store.close()


async def test_every_attempt_of_a_webhook_is_counted_by_what_became_of_it(tmp_path: Path) -> None:
    clock = Clock()
    with recorded_metrics() as recorded:
        async with receiving(status(500), status(204), status(410)) as receiver:
            for _ in range(2):
                clock = Clock()
                store = DueJobs(ended_job(url_of(receiver)))
                sending = sender(store, settings(tmp_path), clock=clock)
                while store.webhook.state == "pending":
                    await send_due(store, sending, clock.now)
                    clock.now = store.webhook.next_at or clock.now
    assert recorded.values(metrics.WEBHOOKS, outcome="repeated") == [1]
    assert recorded.values(metrics.WEBHOOKS, outcome="delivered") == [1]
    assert recorded.values(metrics.WEBHOOKS, outcome="failed") == [1]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    config: AppConfig = make_config(jobs={"slots": {"wan26": 1}})
    bench = Bench(FakeGraph(wan26=HeldVideoModel()), config)
    async with running_loops(bench.one):
        yield bench
    await bench.desk.close()


@pytest.mark.slow
async def test_a_job_that_is_cancelled_is_counted_as_such(bench: Bench) -> None:
    job = await bench.add(video())
    with recorded_metrics() as recorded:
        call = await begun(bench, job)
        await bench.store.request_cancel(job.id, at=time.time(), expires_at=time.time() + 60)
        await within(call)
    assert recorded.values(metrics.JOBS_ENDED, endpoint="wan2.6", model="wan26", outcome="cancelled") == [1]
    assert len(recorded.values(metrics.QUEUE_SECONDS, endpoint="wan2.6", model="wan26")) == 1
    assert recorded.total(metrics.FRAMES) == recorded.total(metrics.COST) == 0


@pytest.mark.parametrize(
    ("held", "deleted"),
    [
        ("by a Runner", False),
        ("by a Runner", True),
        ("by one that has not read it", False),
        ("by one that has not read it", True),
        ("by nobody", False),
    ],
)
async def test_a_job_that_is_cancelled_while_it_waits_is_counted_once_and_is_not_lost(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, held: str, deleted: bool
) -> None:
    blocker, job = await bench.add(video()), await bench.add(video())
    await bench.store.take("somebody else", blocker.id)
    await bench.store.start("somebody else", slots={"wan26": 1}, max_running=1)
    size = bench.files.size

    async def cancel() -> None:
        """Cancel the job from two connections at once."""
        await asyncio.gather(*(bench.desk.cancel(job.id, "ada") for _ in range(2)))
        if deleted:
            assert await bench.desk.delete(job.id, "ada") is not None

    async def cancelled_meanwhile(key: str) -> int | None:
        await cancel()
        return await size(key)

    with recorded_metrics() as recorded, caplog.at_level(logging.INFO, "ray.serve"):
        if held == "by one that has not read it":
            monkeypatch.setattr(bench.files, "size", cancelled_meanwhile)
        if held == "by nobody":
            await cancel()
        call = asyncio.ensure_future(bench.one.run(job.id))
        if held == "by a Runner":
            while not (await bench.record(job)).owner:  # noqa: ASYNC110 -- the store tells nobody
                await asyncio.sleep(0.01)
            await cancel()
        outcome = await within(call)
    assert outcome is not None
    assert outcome.job.state == "cancelled"
    assert recorded.values(metrics.JOBS_ENDED, endpoint="wan2.6", model="wan26", outcome="cancelled") == [1]
    assert recorded.total(metrics.JOBS_ENDED) == 1
    assert sum(f"job {job.id} of wan2.6 ended: cancelled" in message for message in caplog.messages) == 1
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [key for key, _ in await bench.files.list("requests")] == [request_key(blocker.id)]


@pytest.mark.slow
async def test_a_job_at_its_deadline_is_a_timeout(bench: Bench) -> None:
    clock = LoopClock()
    job = await bench.add(video(), deadline_at=time.time() + 1000)
    with recorded_metrics() as recorded:
        call = await begun(bench, job)
        clock.move(1000)
        await within(call)
    assert recorded.total(metrics.JOBS_ENDED, endpoint="wan2.6", outcome="timeout") == 1
    assert metrics.JOB_SECONDS.name not in recorded.names()
