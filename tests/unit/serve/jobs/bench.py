"""Two Runners without Ray, for tests of what they do; every wait is for an event, with a limit."""

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from serve.config import AppConfig
from serve.jobs.results.outcome import Outcome
from serve.jobs.store.keys import request_key
from serve.jobs.store.record import Job
from serve.media.spool import read_media
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import HeldVideoModel
from tests.unit.serve.jobs.job_builders import make_job
from tests.unit.serve.local_jobs import LocalDesk

T = TypeVar("T")
LIMIT_S = 60


async def within(work: Awaitable[T]) -> T:
    """Return the result of ``work``, which must come in a time that only a fault exceeds."""
    return await asyncio.wait_for(work, LIMIT_S)


class Bench:
    """Two Runner replicas, ``one`` and ``two``, over one store and one graph."""

    def __init__(self, graph: FakeGraph, config: AppConfig) -> None:
        self.graph = graph
        self.desk = LocalDesk(config, graph)
        self.store, self.files = self.desk.store, self.desk.files
        self.one = self.desk.runner.new("one")
        self.two = self.desk.runner.new("two")

    async def add(self, request: Any, **fields: Any) -> Job:
        """Store a durable job with its request."""
        job, stored = make_job(request, **fields)
        await self.files.put(request_key(job.id), read_media(stored))
        return await self.store.create(job, max_queued=100)

    async def record(self, job: Job) -> Job:
        """Return the record of a job as it is now."""
        current = await self.store.get(job.id)
        assert current is not None
        return current


async def begun(bench: Bench, job: Job, runner: Any = None) -> "asyncio.Future[Outcome | None]":
    """Start a job on a held model, and return its call once the model has begun."""
    model = bench.graph.wan26
    assert isinstance(model, HeldVideoModel)
    model.gate = asyncio.Event()
    call = asyncio.ensure_future((runner or bench.one).run(job.id))
    await within(model.begun.wait())
    return call
