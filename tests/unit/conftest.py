"""What the unit tests share: processes that decode files, which take long to start."""

import atexit
from typing import ClassVar

import pytest

from serve.media.worker_pool import WorkerPool
from serve.media.worker_process import WorkerProcess


class SharedPool(WorkerPool):
    """A pool that takes processes of earlier tests, and leaves its own to later ones."""

    _kept: ClassVar[list[WorkerProcess]] = []

    def _start(self) -> WorkerProcess:
        while self._kept:
            worker = self._kept.pop()
            if worker.alive:
                self._all.add(worker)
                return worker
        return super()._start()

    def _put_back(self, worker: WorkerProcess) -> None:
        if worker.alive:
            self._all.discard(worker)
            self._kept.append(worker)

    async def warm_up(self) -> None:
        """Start nothing: the first lease does."""

    @classmethod
    def end_kept(cls) -> None:
        """End the processes that no test needs any more."""
        for worker in cls._kept:
            worker.kill()
            worker.reaped(5)


atexit.register(SharedPool.end_kept)


@pytest.fixture(autouse=True)
def shared_pool(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Share processes between tests, except those marked `own_pool`, which kill them."""
    if request.node.get_closest_marker("own_pool") is None:
        monkeypatch.setattr("serve.pipelines.decoder.WorkerPool", SharedPool)
