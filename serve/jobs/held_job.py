"""A job whose lease this Runner holds: what waits for its turn, and what stops it."""

import asyncio
from collections import deque
from typing import Literal

from serve.jobs.store.record import Job, Progress
from serve.pipelines.meter import Meter

Reason = Literal["cancelled", "left", "lost"]
"""Why a job is stopped: it was cancelled, its caller left, or the lease was lost."""


class HeldJob:
    """One attempt of a job.

    ``turn`` is set when the job may start, ``stopped`` gets the reason why it must stop. ``steps``
    are those that the store has not got yet, and ``storing`` keeps their order. ``ending`` is set
    once its end is being recorded. ``meter`` has the times of the attempt.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.turn = asyncio.Event()
        self.stopped: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()
        self.steps: deque[Progress] = deque()
        self._shown: Progress | None = None
        self.storing = asyncio.Lock()
        self.ending = False
        self.meter = Meter({})

    def show(self, progress: Progress) -> None:
        """Add a step for the store, unless it is the last one again.

        Otherwise a job that asks a full model again and again would tell its listeners each time.
        """
        if progress != self._shown:
            self._shown = progress
            self.steps.append(progress)

    def stop(self, reason: Reason) -> None:
        """Ask the job to stop; the first reason counts.

        One that is ending needs none: its lease ends with it, which looks as if it were lost.
        """
        if not self.stopped.done() and not self.ending:
            self.stopped.set_result(reason)

    def advice(self) -> str:
        """Return how the caller can avoid a timeout, as the end of a sentence."""
        if next(iter(self.meter.hardware), None) in self.meter.begun:
            return "ask for fewer frames or steps"
        return (
            "the model had not begun, because it still starts or its queue is long: start it ahead with POST /warm, "
            "or allow more time"
        )
