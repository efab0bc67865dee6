"""A pool whose one process is a function of the test."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from serve.media.workers.messages import Message
from serve.media.workers.pool import WorkerPool

Answer: TypeAlias = tuple[Message, npt.NDArray[np.uint8] | None]
Work: TypeAlias = Callable[[dict[str, Any]], Awaitable[Answer]]


class LentWorker:
    """Notes the arguments of each request in ``asked``, and lets ``work`` answer it."""

    def __init__(self, work: Work) -> None:
        self.asked: list[dict[str, Any]] = []
        self.closed = False
        self._work = work

    @property
    def pool(self) -> WorkerPool:
        """The pool that lends it."""
        return cast(WorkerPool, self)

    @asynccontextmanager
    async def lease(self) -> AsyncIterator["LentWorker"]:
        """Yield the worker."""
        yield self

    async def ask(self, operation: str, **arguments: Any) -> Answer:
        """Answer a request; the contents of its files stand in place of their descriptors."""
        files = [os.pread(one, 10**6, 0) for one in (arguments["file"], *arguments["others"])]
        self.asked.append({"operation": operation, **arguments, "files": files})
        return await self._work(arguments)

    def close(self) -> None:
        """Note that the pool was closed."""
        self.closed = True


async def sign(arguments: dict[str, Any]) -> None:
    """Ask for a signature, as the process does from a thread."""
    await asyncio.to_thread(arguments["respond"], {"sign": b"\x84\x6aSignature1 and more".hex()})
