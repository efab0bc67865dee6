"""The Runner deployment over a fake graph: what it starts with, what it calls, and its health."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from serve.jobs import runner as module
from serve.jobs.runner import Runner
from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.sweeper import Sweeper
from serve.media.workers.pool import WorkerPool
from serve.models import RUNNER
from tests.unit.serve.fake_graph import FakeConsumer, FakeGraph
from tests.unit.serve.http.service import make_config
from tests.unit.serve.jobs.bench import within
from tests.unit.serve.jobs.job_builders import make_job, video
from tests.unit.serve.jobs.webhook_receiver import SECRET

LOOPS = {
    "JobRunner._beat",
    "JobRunner._take_turns",
    "JobRunner._flush",
    "Sweeper.watch",
    "Sweeper.clean",
    "UsageReport.run",
    "Marking.watch",
}


class Serve:
    """What a replica asks of Serve and of its node."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.consumers: list[FakeConsumer] = []
        self.handles: list[tuple[str, str]] = []
        replica = SimpleNamespace(app_name="films", replica_id=SimpleNamespace(unique_id="replica-7"))
        monkeypatch.setattr("serve.jobs.runner.serve.get_replica_context", lambda: replica)
        monkeypatch.setattr("serve.jobs.runner.serve.get_deployment_handle", self._handle)
        monkeypatch.setattr("serve.jobs.runner.ray.util.get_node_ip_address", lambda: "127.0.0.1")
        monkeypatch.setattr("serve.jobs.runner.logs.name_origins", lambda: None)
        monkeypatch.setattr(module, "ConsumerEnd", self._consumer)
        monkeypatch.setattr(module, "make_handles", lambda *_, **__: FakeGraph().handles())
        monkeypatch.setattr(WorkerPool, "warm_up", lambda pool: asyncio.sleep(0))  # it would start processes

    def _handle(self, name: str, application: str) -> Any:
        self.handles.append((name, application))
        return SimpleNamespace(options=lambda **_: None)

    def _consumer(self, host: str) -> FakeConsumer:
        assert host == "127.0.0.1"
        self.consumers.append(FakeConsumer(started=False))
        return self.consumers[-1]


@pytest.fixture
def fake_serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serve as the replica of a test finds it."""
    return Serve(monkeypatch)


@asynccontextmanager
async def replica(folder: Path, **jobs: Any) -> AsyncIterator[Any]:
    """Start a replica as Serve does, which awaits the constructor, and end it with the block."""
    config = make_config(jobs={"folder": folder, **jobs}, provenance={"c2pa": {"enabled": False}})
    deployment: Any = Runner
    runner = deployment.func_or_class.__new__(deployment.func_or_class)
    await runner.__init__(config, {})
    try:
        yield runner
    finally:
        for loop in runner._loops:
            loop.cancel()
        await asyncio.gather(*runner._loops, return_exceptions=True)
        await runner._store.close()
        runner._files.close()


def names_of(runner: Any) -> list[str]:
    """Return what the loops of a replica run, in any order."""
    return sorted(loop.get_coro().__qualname__ for loop in runner._loops)


async def test_a_replica_is_started_once_everything_that_its_jobs_need_is_there(fake_serve: Serve, tmp_path: Path) -> None:
    async with replica(tmp_path / "jobs") as runner:
        assert [consumer.started for consumer in fake_serve.consumers] == [True]
        assert fake_serve.handles == [(RUNNER, "films")]  # by which it gives away the jobs that nobody works on
        assert runner.owner == "replica-7"
        assert (tmp_path / "jobs" / "films" / "jobs.sqlite3").exists()
        assert names_of(runner) == sorted(LOOPS)
        runner.check_health()


async def test_only_a_service_that_may_send_webhooks_looks_for_them(fake_serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET)
    webhooks = {"hosts": ["hooks.example.org"], "secret_file": tmp_path / "secret"}
    async with replica(tmp_path / "jobs", webhooks=webhooks) as runner:
        assert names_of(runner) == sorted({*LOOPS, "WebhookSender.run"})


async def test_a_job_is_run_as_the_job_runner_runs_it(fake_serve: Serve, tmp_path: Path) -> None:
    """A job that was accepted for a caller who is gone costs no work, and its end is recorded."""
    async with replica(tmp_path / "jobs") as runner:
        assert await within(runner.run("0" * 32)) is None
        job, _ = make_job(video(), durable=False)
        await runner._store.create(job, max_queued=9)
        outcome = await within(runner.run(job.id))
        assert outcome is not None
        assert (outcome.job.state, outcome.job.attempt) == ("failed", 1)
        assert await runner._store.get(job.id) == outcome.job


async def test_a_replica_without_one_of_its_loops_is_not_healthy(
    fake_serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Serve replaces it: jobs would wait for a turn, or for a beat, that never comes."""
    error, go = KeyError("a fault of ours"), asyncio.Event()

    async def fail(sweeper: Sweeper) -> None:
        await go.wait()
        raise error

    monkeypatch.setattr(Sweeper, "clean", fail)
    async with replica(tmp_path / "jobs") as runner:
        runner.check_health()
        go.set()
        await within(asyncio.wait(runner._loops, return_when=asyncio.FIRST_COMPLETED))
        with pytest.raises(RuntimeError, match="a loop of the Runner has ended; the log says why") as unhealthy:
            runner.check_health()
        assert unhealthy.value.__cause__ is error


async def test_a_replica_that_cannot_open_its_store_does_not_start(fake_serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file where a folder should be")
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        async with replica(tmp_path / "jobs"):
            pytest.fail("it has started")
