"""The desk of an ingress replica: accepts jobs, reports their progress and returns results."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from serve.jobs.files.file_store import FileStore
from serve.jobs.results.outcome import Outcome
from serve.jobs.store.job_store import JobStore
from serve.jobs.store.record import Job
from serve.media.spool import Media


@dataclass(frozen=True)
class News:
    """What a listener of a job learns. ``position`` is the number of jobs before a queued one.

    ``id`` is that of the event in the store, or None if only the position has changed.
    """

    job: Job
    id: int | None
    position: int | None


class Desk(Protocol):
    """What the HTTP layer asks of jobs. Any replica answers for any job.

    Methods that take a ``caller`` return None for a job that the caller does not have. Those that
    take a ``request`` free the space of a large one as soon as it is stored.
    """

    async def open(self) -> None:
        """Connect to the store."""

    async def close(self) -> None:
        """Leave the store. Jobs go on."""

    async def run(self, job: Job, request: Media) -> Outcome:
        """Run a job that is not durable, and return its end with the result.

        Cancelling the call cancels the job.
        """

    async def accept(self, job: Job, request: Media) -> Job:
        """Store a durable job and its request, let it run, and return its record.

        Returns the caller's earlier job with the same idempotency key if there is one. Raises
        KeyReused and NoRoom as ``JobStore.create`` does, and StorageFull for a disk that is nearly
        full, before anything is written.
        """

    async def wait(self, job_id: str, timeout_s: float) -> Job | None:
        """Return the job once it has ended, or as it is after ``timeout_s``; None if it is gone."""

    async def fetch(self, job: Job) -> Media:
        """Return the stored result of a job that has succeeded, which may be on disk.

        Raises FileNotFoundError if it is not there any more.
        """

    async def get(self, job_id: str, caller: str) -> Job | None:
        """Return a job."""

    async def position(self, job: Job) -> int | None:
        """Return the number of jobs that start before ``job``, or None if it is not queued."""

    def follow(self, job_id: str, after: int) -> AsyncIterator[News]:
        """Yield the events of a job with ids above ``after`` as they happen, to the last one.

        An id that the job has not had counts as 0. All listeners of a job in this replica share
        what is read from the store.
        """

    async def cancel(self, job_id: str, caller: str) -> Job | None:
        """Ask that a job be cancelled, and return its record."""

    async def delete(self, job_id: str, caller: str) -> Job | None:
        """Delete an ended job with its files, and return its last record."""


@dataclass(frozen=True)
class Jobs:
    """Everything that the HTTP layer needs for jobs."""

    desk: Desk
    store: JobStore
    files: FileStore
