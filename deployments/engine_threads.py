"""Runs engine calls in worker threads and never abandons one: a cancelled call is waited for.

Cancelling an asyncio task does not stop a thread. If the task returned at once, the next request
would step on the GPU while the old one still runs. So the task that started the thread asks it to
stop and then waits, shielded, until it has.
"""

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from deployments.errors import (
    Cancelled,
    DeploymentError,
    EngineBroken,
    GpuLost,
    NotFinite,
    ReplicaStalled,
    WeightsDamaged,
)
from deployments.priority_gate import PriorityGate
from deployments.task_end import wait_for_end

T = TypeVar("T")
BEHIND = 10
"""How much niceness is added to threads that step back; Linux allows 19 at most."""
FAILURES = 3
"""Failed calls in a row after which a replica counts as broken; the input may be the cause of a
single one."""


class CancelFlag:
    """A flag that an engine checks once per step. Each check is also a sign of life."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self.last_sign = time.monotonic()
        """The time of the last check, by ``time.monotonic``."""

    def set(self) -> None:
        """Ask the engine to stop."""
        self._flag.set()

    def check(self) -> None:
        """Raise Cancelled if the engine has been asked to stop."""
        self.last_sign = time.monotonic()
        if self._flag.is_set():
            raise Cancelled("the result is no longer needed: the consumer cancelled the call or is gone")


class EngineThreads:
    """Runs at most ``concurrency`` engine calls at a time, and ``urgent`` more that are urgent.

    Further calls wait, first come first served; urgent ones have a queue of their own. With
    ``steps_back`` the threads leave the CPU to the other processes of the machine that need it: a
    video takes seconds or minutes in any case, while others wait for a swap or for a health check.
    """

    def __init__(self, concurrency: int, stall_timeout_s: float, *, urgent: int = 0, steps_back: bool = False) -> None:
        self._slots = PriorityGate(concurrency, reserved=urgent)
        self._threads = ThreadPoolExecutor(
            concurrency + urgent, thread_name_prefix="engine", initializer=_step_back if steps_back else None
        )
        self._stall_timeout_s = stall_timeout_s
        self._running: set[CancelFlag] = set()
        self._failures = 0
        """Calls in a row that failed by a fault of the engine."""
        self._last_failure = ""

    @asynccontextmanager
    async def start(
        self, call: Callable[[CancelFlag], T], *, urgent: bool = False
    ) -> AsyncIterator[tuple["asyncio.Future[T]", CancelFlag]]:
        """Run ``call`` in a thread as soon as a slot is free, an ``urgent`` one before others.

        Leaving the block asks the call to stop and waits until it has ended.
        """
        async with self._slots.place(urgent=urgent):
            cancel = CancelFlag()
            # The thread works for the same request and job as its caller.
            context = contextvars.copy_context()
            work = asyncio.get_running_loop().run_in_executor(self._threads, context.run, call, cancel)
            self._running.add(cancel)
            try:
                yield work, cancel
            finally:
                cancel.set()
                try:
                    await wait_for_end(work)
                finally:  # also of a call that is cancelled twice: one that ended must not look stalled
                    self._running.discard(cancel)
                    self._count_failures(work)

    async def run(self, call: Callable[[CancelFlag], T], *, urgent: bool = False) -> T:
        """Return the result of ``call``, which must check the flag that it is given."""
        async with self.start(call, urgent=urgent) as (work, _):
            return await asyncio.shield(work)

    def check_health(self) -> None:
        """Raise an error if the replica must be replaced.

        Raises ReplicaStalled if a running call has shown no sign of life for too long, and
        EngineBroken if the last calls all failed, or one lost a GPU or the weights: nothing works
        in the process any more then, and only a new process helps.
        """
        if self._failures >= FAILURES:
            raise EngineBroken(f"the last calls of the engine failed: {self._last_failure}; the log has their errors")
        for cancel in self._running:
            silent = time.monotonic() - cancel.last_sign
            if silent > self._stall_timeout_s:
                raise ReplicaStalled(f"no sign of life from the engine for {silent:.0f} s (limit {self._stall_timeout_s:g} s)")

    def _count_failures(self, work: "asyncio.Future[T]") -> None:
        error = None if work.cancelled() else work.exception()
        if error is None:
            self._failures = 0
        elif isinstance(error, GpuLost | WeightsDamaged):
            self._failures = FAILURES  # no other call can succeed
            self._last_failure = str(error)
        elif isinstance(error, NotFinite) or not isinstance(error, DeploymentError):
            self._failures += 1
            self._last_failure = str(error) or type(error).__name__


def _step_back() -> None:
    """Lower the priority of this thread, and so of those that it starts, as Linux counts it."""
    thread = threading.get_native_id()
    os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + BEHIND)
