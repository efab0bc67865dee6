"""The worker processes of one service, each of which is leased to one file at a time."""

import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.media.workers.process import DECODER, WorkerProcess

_END_TIMEOUT_S = 5


class WorkerPool:
    """Starts processes as they are needed, and keeps up to ``spare`` of them between leases.

    How many are leased at once is up to the callers. The processes end with the pool. ``module`` is
    the program that they run.
    """

    def __init__(self, spare: int, module: str = DECODER) -> None:
        self._spare = spare
        self._module = module
        self._all: set[WorkerProcess] = set()
        self._idle: list[WorkerProcess] = []
        self._finalizer = weakref.finalize(self, _end, self._all)

    @property
    def processes(self) -> frozenset[WorkerProcess]:
        """All processes that have not ended."""
        return frozenset(worker for worker in self._all if worker.alive)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator[WorkerProcess]:
        """Yield a process for the block alone. It must not be in the middle of a file after it.

        Raises ``WorkerDied`` if a new process cannot start.
        """
        worker = self._take()
        try:
            await worker.start()
            yield worker
        finally:
            self._put_back(worker)

    async def warm_up(self) -> None:
        """Start the spare processes, so that the first requests do not wait for them."""
        while len(self._idle) < self._spare:
            worker = self._start()
            self._idle.insert(0, worker)
        for worker in list(self._idle):
            await worker.start()

    def close(self) -> None:
        """End all processes."""
        self._finalizer()
        self._idle.clear()

    def _take(self) -> WorkerProcess:
        self._all.difference_update([worker for worker in self._all if not worker.alive and worker.reaped()])
        while self._idle:
            worker = self._idle.pop()
            if worker.alive:
                return worker
            worker.kill()
        return self._start()

    def _start(self) -> WorkerProcess:
        worker = WorkerProcess(self._module)
        self._all.add(worker)
        return worker

    def _put_back(self, worker: WorkerProcess) -> None:
        if worker.alive and len(self._idle) < self._spare:
            self._idle.append(worker)
        else:
            worker.kill()


def _end(workers: set[WorkerProcess]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.reaped(_END_TIMEOUT_S)
    workers.clear()
