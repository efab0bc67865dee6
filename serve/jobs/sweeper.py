"""Finds jobs that nobody works on, and what is to be deleted."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import cast

from serve.jobs.files.file_store import FileStore
from serve.jobs.files.removal import remove_files
from serve.jobs.store.job_store import JobStore, StoreUnavailable
from serve.jobs.store.keys import FOLDERS, job_of
from serve.jobs.store.record import Job, State
from serve.telemetry import metrics

logger = logging.getLogger("ray.serve")

LOOKS_PER_LEASE = 5
"""How often jobs are looked at within the time of a lease."""
CLEAN_PERIOD_S = 30.0
"""Seconds between two searches for expired jobs."""
ORPHAN_AGE_S = 3600.0
"""The age from which a file without a job is deleted. A request is written before its record."""
OVERDUE_S = 60.0
"""Seconds after its deadline at which a job that has not ended counts as overdue. A Runner ends a
job at its deadline."""
_BATCH = 100


@dataclass(frozen=True)
class _Seen:
    """A sign of life of a job, and when this sweeper saw it first, by its own clock."""

    attempt: int
    beat: int
    since: float


def _report(active: Sequence[Job], now: float) -> None:
    """Record how many jobs have not ended, and which of them are late."""
    states = Counter(job.state for job in active)
    for state in metrics.STATE.values:
        metrics.JOBS.set(states[cast(State, state)], state=state)
    metrics.JOBS_OVERDUE.set(sum(now - job.deadline_at > OVERDUE_S for job in active))
    queued = [now - job.created_at for job in active if job.state == "queued"]
    metrics.OLDEST_QUEUED_SECONDS.set(max(queued, default=0.0))


class Sweeper:
    """Watches all jobs of the store. ``take_up`` gives a job to a Runner, whichever is free.

    A job is lost if its beat has not changed for ``lease_s`` by this sweeper's clock, during which
    the store has answered: clocks of nodes are never compared, and after a time in which the store
    was unavailable, every owner has as long again to show that it is alive.
    """

    def __init__(
        self,
        store: JobStore,
        files: FileStore,
        *,
        lease_s: float,
        take_up: Callable[[Job], Awaitable[object]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._files = files
        self._lease_s = lease_s
        self._take_up = take_up
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    async def watch(self) -> None:
        """Take up lost jobs until cancelled."""
        while True:
            await asyncio.sleep(self._lease_s / LOOKS_PER_LEASE)
            await self.look()

    async def look(self) -> None:
        """Take up the jobs that are lost now."""
        try:
            active = await self._store.active()
        except StoreUnavailable as error:
            logger.warning("the store of jobs is unavailable: %s", error)
            metrics.STORE_REACHABLE.set(0)
            self._seen.clear()
            return
        metrics.STORE_REACHABLE.set(1)
        _report(active, time.time())
        now, seen = self._clock(), {}
        for job in active:
            before = self._seen.get(job.id)
            if before is None or (before.attempt, before.beat) != (job.attempt, job.beat):
                before = _Seen(job.attempt, job.beat, now)
            elif now - before.since >= self._lease_s:
                logger.warning("job %s: nobody has worked on it for %g s; taking it up", job.id, now - before.since)
                await self._take_up(job)
                before = _Seen(job.attempt, job.beat, now)
            seen[job.id] = before
        self._seen = seen

    async def clean(self) -> None:
        """Delete expired jobs and orphan files until cancelled."""
        while True:
            await asyncio.sleep(CLEAN_PERIOD_S)
            for delete in (self.delete_expired, self.delete_orphans):
                try:
                    await delete(time.time())
                except StoreUnavailable as error:
                    logger.warning("the store of jobs is unavailable: %s", error)
                except Exception:
                    # Serve replaces a Runner one of whose loops has ended.
                    logger.exception("what is to be deleted could not all be deleted; it is tried again")

    async def delete_expired(self, now: float) -> None:
        """Delete the jobs that have expired, with their files."""
        while expired := await self._store.expired(now, _BATCH):
            for job in expired:
                if await self._store.delete(job.id) is not None:
                    await remove_files(self._files, job.id)

    async def delete_orphans(self, now: float) -> None:
        """Delete old files that belong to no job: their writer died before the record was there.

        Files whose names are not those of jobs' files were put there by others, and stay.
        """
        for folder in FOLDERS:
            old = [key for key, written_at in await self._files.list(folder) if now - written_at > ORPHAN_AGE_S]
            ids = {key: job_id for key in old if (job_id := job_of(key)) is not None}
            known = await self._store.known(set(ids.values()))
            for key, job_id in ids.items():
                if job_id not in known:
                    await self._files.delete(key)
