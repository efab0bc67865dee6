"""Gives jobs that nobody works on to Runners, each with one call at a time."""

import asyncio
import logging

from serve.jobs.runner_handle import Runs, detached
from serve.jobs.store.record import Job

logger = logging.getLogger("ray.serve")


class TakeUps:
    """Lets a Runner, perhaps another one, run a job that nobody works on.

    Each is a call of its own, so that Serve counts it and a replica is not stopped during it. While
    all Runners are full a call waits in Serve's router, and the sweeper finds the job lost again
    and again: it gets no second call before the first one has ended.
    """

    def __init__(self, runs: Runs) -> None:
        self._runs = runs
        self._calls: dict[str, asyncio.Task[None]] = {}

    async def take_up(self, job: Job) -> None:
        """Begin to call a Runner for ``job``, unless a call for it goes on."""
        if job.id in self._calls:
            return
        call = detached(self._call(job))
        self._calls[job.id] = call
        call.add_done_callback(lambda _: self._calls.pop(job.id))

    async def _call(self, job: Job) -> None:
        try:
            await self._runs(job.id, None, waiter=None, known_beat=job.beat)
        except Exception as error:  # nobody waits for this call; the sweeper finds the job again
            logger.warning("job %s could not be taken up: %r", job.id, error)
