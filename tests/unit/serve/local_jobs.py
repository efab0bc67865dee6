"""Jobs without Ray: a desk whose Runner is in this process, over a fake graph."""

import asyncio
import shutil
import tempfile
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from deployments.flow_control import ConsumerEnd
from serve.config import AppConfig
from serve.jobs.desk import Jobs
from serve.jobs.execution import Execution
from serve.jobs.files.file_store import FileStore
from serve.jobs.front_desk import FrontDesk
from serve.jobs.job_runner import JobRunner
from serve.jobs.open_store import open_stores
from serve.jobs.results.outcome import Outcome
from serve.jobs.store.job_store import JobStore
from serve.pipelines.pipelines import make_pipelines
from serve.provenance.marking import Marking
from tests.unit.serve.fake_graph import FakeGraph

APPLICATION = "films"
"""The name of the application whose jobs they are."""


class Line:
    """The connection by which a Runner learns that the caller of a job is gone."""

    def __init__(self) -> None:
        self._closed = asyncio.Event()

    @asynccontextmanager
    async def connect(self) -> AsyncIterator["Line"]:
        """Yield the line itself."""
        yield self

    async def closed(self) -> None:
        """Wait until the caller is gone."""
        await self._closed.wait()

    def close(self) -> None:
        """Say that the caller is gone."""
        self._closed.set()


class Lines:
    """Stands for the ConsumerEnd of an ingress."""

    def open(self, size: int) -> Line:
        """Return a new line."""
        return Line()

    def close(self, line: Line) -> None:
        """Close a line."""
        line.close()


class LocalRunner:
    """Runs jobs as the Runner deployment does; its loops run while it has calls.

    Tests may call it from one event loop after another, as Starlette's TestClient does. Results are
    not signed unless a ``marking`` that was started does it: a signature costs a process.
    """

    def __init__(
        self, config: AppConfig, graph: FakeGraph, store: JobStore, files: FileStore, *, marking: Marking | None = None
    ) -> None:
        self._config = config
        self._store = store
        self._files = files
        self._pipelines = make_pipelines(config, graph.handles())
        self._marking = marking or Marking(config.provenance, demo=False, processes=2)
        self.execution = Execution(config, self._pipelines, graph.readiness, files, marking=self._marking)
        self.calls = 0

    def new(self, owner: str) -> JobRunner:
        """Return another Runner replica over the same stores and models."""
        return JobRunner(owner, self._config.jobs, self.execution, store=self._store, files=self._files)

    async def __call__(self, job_id: str, request: bytes | None, *, waiter: Any, known_beat: int | None) -> Outcome | None:
        """Run a job to its end."""
        self.calls += 1
        runner = self.new(f"runner-{self.calls}")
        async with running_loops(runner):
            return await runner.run(job_id, request, waiter=waiter, known_beat=known_beat)

    def close(self) -> None:
        """End the processes that decode media."""
        self._pipelines.decoder.pool.close()
        self._marking.close()


@asynccontextmanager
async def running_loops(runner: JobRunner) -> AsyncIterator[None]:
    """Run the loops of ``runner`` beside the block."""
    loops = [asyncio.ensure_future(loop()) for loop in runner.loops()]
    try:
        yield
    finally:
        for loop in loops:
            loop.cancel()
        ended = await asyncio.gather(*loops, return_exceptions=True)
    errors = [error for error in ended if isinstance(error, Exception)]
    assert not errors, f"a loop of the Runner failed: {errors}"


class OpenedOnUse:
    """A store that is opened by the first call: TestClient does not start an application."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._opened = False

    async def open(self) -> None:
        """Open the store."""
        if not self._opened:
            await self._store.open()
            self._opened = True

    async def close(self) -> None:
        """Close the store."""
        if self._opened:
            await self._store.close()
            self._opened = False

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._store, name)

        async def call(*args: object, **fields: object) -> Any:
            await self.open()
            return await method(*args, **fields)

        return call


class LocalDesk(FrontDesk):
    """A desk with everything that it needs: a store in a temporary folder and a Runner."""

    def __init__(self, config: AppConfig, graph: FakeGraph, *, marking: Marking | None = None) -> None:
        folder = Path(tempfile.mkdtemp(prefix="ryla-jobs-"))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        jobs = config.jobs.model_copy(update={"folder": folder / "jobs"})
        store, self.files = open_stores(jobs, APPLICATION)
        self.store = cast(JobStore, OpenedOnUse(store))
        self.runner = LocalRunner(config, graph, self.store, self.files, marking=marking)
        self._settings = jobs
        super().__init__(self.store, self.files, self.runner, **self._arguments())

    def _arguments(self) -> dict[str, Any]:
        return {
            "consumer": cast(ConsumerEnd, Lines()),
            "settings": self._settings,
        }

    def of_another_replica(self) -> Jobs:
        """Return a desk with a store of its own that shares the jobs, as another ingress has it."""
        store, files = open_stores(self._settings, APPLICATION)
        opened = cast(JobStore, OpenedOnUse(store))
        return Jobs(FrontDesk(opened, files, self.runner, **self._arguments()), opened, files)

    async def close(self) -> None:
        """Leave the store and end the processes that decode media."""
        await super().close()
        self.runner.close()
