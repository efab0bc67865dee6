"""Runs media code in threads, so that encoding never blocks the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from serve.pipelines.errors import blame

P = ParamSpec("P")
T = TypeVar("T")


class MediaThreads:
    """A pool of ``count`` threads for the media of all requests of a replica."""

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="media")

    def start(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
        """Call ``function`` in a thread; return the future of its result.

        It is not a task: when a loop ends, it cancels its tasks, but what a thread uses must not be
        freed before the thread has ended.
        """
        return asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of ``function``, called in a thread."""
        return await self.start(function, *args, **kwargs)

    async def check(self, field: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like ``run``, but a faulty file raises RequestRefused or MediaOverLimit for ``field``."""
        with blame(field):
            return await self.run(function, *args, **kwargs)
