"""When a queue has room again: an estimate from the pace of its jobs and the work ahead."""

import asyncio
import heapq
import time
from collections.abc import Collection, Mapping, Sequence
from statistics import fmean

from serve.jobs.store.job_store import JobStore, StoreUnavailable
from serve.jobs.store.record import Job

UNKNOWN_S = 10.0
"""The estimate for queues of which no job has been measured."""


class Forecast:
    """Estimates of waiting times, in seconds.

    ``slots`` says how many jobs of each run at a time, and ``max_running`` how many of one caller.
    None of them raises an error: where the store is unavailable, the estimate is ``UNKNOWN_S``.
    """

    def __init__(self, store: JobStore, slots: Mapping[str, int], *, max_running: int) -> None:
        self._store = store
        self._slots = slots
        self._max_running = max_running

    async def until_start_s(self, caller: str | None) -> float:
        """Return the time until one of the queued jobs of ``caller``, or of anybody, starts."""
        try:
            waits = [await self._until_start_s(caller, slot) for slot in self._slots]
        except StoreUnavailable:
            return UNKNOWN_S
        return min((wait for wait in waits if wait is not None), default=UNKNOWN_S)

    async def until_end_s(self, slot: str, *, besides: str) -> float:
        """Return the time until a running job of ``slot`` ends, other than the job ``besides``."""
        try:
            queue = await self._store.queue(slot)
            running = await self._jobs(set(queue.running) - {besides})
        except StoreUnavailable:
            return UNKNOWN_S
        now = time.time()
        pace_s = _pace_s(running, queue.pace_s, now)
        return min((left_s(job, pace_s, now) for job in running), default=pace_s)

    async def _until_start_s(self, caller: str | None, slot: str) -> float | None:
        """Return the time until the first job of ``caller`` or anybody in ``slot`` starts."""
        queue = await self._store.queue(slot)
        ahead = next((place for place, job in enumerate(queue.waiting) if caller in (None, job.caller)), None)
        if ahead is None:
            return None
        running = await self._jobs(queue.running)
        now = time.time()
        pace_s = _pace_s(running, queue.pace_s, now)
        left = [left_s(job, pace_s, now) for job in running]
        start_s = start_in_s(ahead, places=self._slots[slot], left=left, pace_s=pace_s)
        own = sorted(seconds for job, seconds in zip(running, left, strict=True) if job.caller == caller)
        if len(own) < self._max_running:
            return start_s
        return max(start_s, own[len(own) - self._max_running])  # one of these must end first

    async def _jobs(self, job_ids: Collection[str]) -> list[Job]:
        jobs = await asyncio.gather(*(self._store.get(job_id) for job_id in job_ids))
        return [job for job in jobs if job is not None and not job.ended]


def start_in_s(ahead: int, *, places: int, left: Sequence[float], pace_s: float) -> float:
    """Return the time until a job starts that has ``ahead`` jobs before it.

    ``left`` are the times that the running jobs still take, and ``pace_s`` that of each further
    one.
    """
    # If there are more jobs than places, the first ones to end make no room.
    ends = sorted(left)[max(0, len(left) - places) :]
    ends += [0.0] * (places - len(ends))
    heapq.heapify(ends)
    for _ in range(ahead):
        heapq.heapreplace(ends, ends[0] + pace_s)
    return ends[0]


def left_s(job: Job, pace_s: float, now: float) -> float:
    """Return the time that a running job still takes: its own estimate, else from ``pace_s``."""
    if job.progress.eta_s is not None:
        return job.progress.eta_s
    return max(0.0, pace_s - _age_s(job, now))


def _pace_s(running: Sequence[Job], measured_s: float | None, now: float) -> float:
    """Return the time of a job: as measured, else by what the running ones say about themselves."""
    if measured_s is not None:
        return measured_s
    said = [_age_s(job, now) + job.progress.eta_s for job in running if job.progress.eta_s is not None]
    return fmean(said) if said else UNKNOWN_S


def _age_s(job: Job, now: float) -> float:
    return 0.0 if job.started_at is None else max(0.0, now - job.started_at)
