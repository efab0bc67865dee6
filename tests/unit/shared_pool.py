"""Pools whose processes outlive a test: each takes half a second of CPU time to start."""

import atexit

from serve.media.workers.pool import WorkerPool
from serve.media.workers.process import DECODER, WorkerProcess

_kept: dict[str, list[WorkerProcess]] = {}


def take_process(module: str = DECODER) -> WorkerProcess:
    """Return a process that an earlier test left, or else a new one; it runs ``module``."""
    kept = _kept.setdefault(module, [])
    while kept:
        worker = kept.pop()
        if worker.alive:
            return worker
        _end(worker)
    return WorkerProcess(module)


def leave_process(worker: WorkerProcess) -> None:
    """Keep a process for later tests if it can still take a request."""
    if worker.alive:
        _kept.setdefault(worker.module, []).append(worker)
    else:
        _end(worker)


def _end(worker: WorkerProcess) -> None:
    """End a process and wait for it, since Python warns of one that nobody has waited for."""
    worker.kill()
    worker.reaped(5)


class KeptPool(WorkerPool):
    """A pool like any other during a test. When it is closed, it leaves its idle processes."""

    def _start(self) -> WorkerProcess:
        worker = take_process(self._module)
        self._all.add(worker)
        return worker

    def close(self) -> None:
        """Leave the idle processes to later tests, and end the others."""
        self._all.difference_update(self._idle)
        for worker in self._idle:
            leave_process(worker)
        super().close()


class SharedPool(KeptPool):
    """A pool that nobody closes, so it leaves each process to other pools at once."""

    def _put_back(self, worker: WorkerProcess) -> None:
        self._all.discard(worker)
        leave_process(worker)

    async def warm_up(self) -> None:
        """Start nothing: the first lease does."""


@atexit.register
def _end_kept() -> None:
    for worker in [worker for kept in _kept.values() for worker in kept]:
        _end(worker)
