"""Takes engine calls in turn, each in a worker thread, and never abandons one: a cancelled call is waited for.

Cancelling an asyncio task does not stop a thread. Returning at once would let the next request step on the GPU while the old one
still runs, so whoever started the thread tells it to stop and then waits, shielded, until it has.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from deployments.errors import Cancelled, DeploymentError, EngineBroken, ReplicaStalled

T = TypeVar("T")
FAILURES = 3
"""Calls in a row that fail before a replica counts as broken: one alone may be of its input."""


class Stop:
    """A flag that the work looks at once a step; every look is a sign of life."""

    def __init__(self) -> None:
        self._flag = threading.Event()
        self.last_sign = time.monotonic()

    def set(self) -> None:
        """Asks the work to stop."""
        self._flag.set()

    def check(self) -> None:
        """Raises Cancelled if the work is no longer wanted."""
        self.last_sign = time.monotonic()
        if self._flag.is_set():
            raise Cancelled("the work is no longer wanted")


class Turns:
    """At most ``concurrency`` engine calls at the same time; the others wait, first come first served."""

    def __init__(self, concurrency: int, stall_timeout_s: float) -> None:
        self._room = asyncio.Semaphore(concurrency)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="engine")
        self._stall_timeout_s = stall_timeout_s
        self._running: set[Stop] = set()
        self._failed = 0
        """Calls in a row that ended in an error that is nobody's intention."""

    @asynccontextmanager
    async def start(self, call: Callable[[Stop], T]) -> AsyncIterator[tuple["asyncio.Future[T]", Stop]]:
        """Runs ``call`` in a thread once it is its turn; leaving the block stops it and waits until it has ended."""
        async with self._room:
            stop = Stop()
            work = asyncio.get_running_loop().run_in_executor(self._threads, call, stop)
            self._running.add(stop)
            try:
                yield work, stop
            finally:
                stop.set()
                await _outlast(work)
                self._running.discard(stop)
                self._note(work)

    async def run(self, call: Callable[[Stop], T]) -> T:
        """The result of ``call``, which looks at the flag that it is given."""
        async with self.start(call) as (work, _):
            return await asyncio.shield(work)

    def _note(self, work: "asyncio.Future[T]") -> None:
        error = None if work.cancelled() else work.exception()
        if error is None:
            self._failed = 0
        elif not isinstance(error, DeploymentError):
            self._failed += 1

    def check_health(self) -> None:
        """Raises ReplicaStalled if a running call has shown no sign of life for too long, EngineBroken if the last ones all failed.

        After a CUDA error nothing runs in the process any more: only a new one helps.
        """
        if self._failed >= FAILURES:
            raise EngineBroken(f"the last {self._failed} calls of the engine all failed: see their errors in the log")
        for stop in self._running:
            silent = time.monotonic() - stop.last_sign
            if silent > self._stall_timeout_s:
                raise ReplicaStalled(
                    f"no sign of life from the engine for {silent:.0f} s (limit {self._stall_timeout_s:.0f} s)"
                )


async def _outlast(work: "asyncio.Future[T]") -> None:
    """Waits until ``work`` is done, whatever becomes of the waiting task, which is then cancelled as it was asked to be."""
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            cancelled = True
    if not work.cancelled():
        work.exception()  # seen: whoever wanted it has it from the future itself
    if cancelled:
        raise asyncio.CancelledError
