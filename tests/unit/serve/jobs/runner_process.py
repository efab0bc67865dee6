"""A Runner replica in a process of its own, over a fake graph, which a test may kill."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np

from deployments.wire import Finished, FrameChunk, Progress, VideoRequest
from serve.config import AppConfig
from serve.jobs.execution import Execution
from serve.jobs.job_runner import JobRunner
from serve.jobs.open_store import open_stores
from serve.jobs.results.outcome import Outcome
from serve.jobs.store.record import Job
from serve.jobs.sweeper import Sweeper
from serve.pipelines.pipelines import make_pipelines
from serve.provenance.marking import Marking
from tests.unit.serve.fake_graph import FakeGraph, FakeVideoModel
from tests.unit.serve.local_jobs import APPLICATION

STEP_S = 0.02


class PacedVideoModel(FakeVideoModel):
    """A model that takes a while for each step, and whose frames depend on the seed."""

    async def generate(self, request: VideoRequest, stream: object, origin: object = None) -> AsyncGenerator[Any, None]:
        """Yield the events of a video."""
        yield Progress("start", 1, 1)
        for step in range(request.steps):
            await asyncio.sleep(STEP_S)
            yield Progress("denoise", step + 1, request.steps)
        for index in (0, *range(1, request.num_frames, 4)):
            await asyncio.sleep(STEP_S)
            shape = (4 if index else 1, request.height, request.width, 3)
            yield FrameChunk(index, np.full(shape, (request.seed * 7 + index) % 256, np.uint8))
        yield Finished({"denoise": 0.1, "decode": 0.1}, "")


async def run_here(config: AppConfig, owner: str) -> None:
    """Run the jobs that nobody works on, until cancelled."""
    store, files = open_stores(config.jobs, APPLICATION)
    await store.open()
    graph = FakeGraph(wan26=PacedVideoModel())
    marking = Marking(config.provenance, demo=False, processes=1)
    execution = Execution(config, make_pipelines(config, graph.handles()), graph.readiness, files, marking=marking)
    runner = JobRunner(owner, config.jobs, execution, store=store, files=files)
    calls: set[asyncio.Future[Outcome | None]] = set()

    async def take_up(job: Job) -> None:
        call = asyncio.ensure_future(runner.run(job.id, None, known_beat=job.beat))
        calls.add(call)
        call.add_done_callback(calls.discard)

    sweeper = Sweeper(store, files, lease_s=config.jobs.lease_s, take_up=take_up)
    await asyncio.gather(*(loop() for loop in (*runner.loops(), sweeper.watch)))


def main(config: str, owner: str) -> None:
    """Run until the process is killed."""
    asyncio.run(run_here(AppConfig.model_validate_json(config), owner))
