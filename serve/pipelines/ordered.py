"""Maps an asynchronous function over a stream, several items at a time, and keeps their order."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


async def map_ordered(source: AsyncIterator[T], function: Callable[[T], Awaitable[U]], ahead: int) -> AsyncGenerator[U, None]:
    """Yield ``function`` of each item of ``source``, in order.

    At most ``ahead`` items are in progress or finished and not yet taken. The source is read while
    results are awaited. When this generator ends, for whatever reason, it cancels and awaits every
    task that it started.
    """
    room = asyncio.Semaphore(ahead)
    tasks: asyncio.Queue[asyncio.Task[U] | None] = asyncio.Queue()
    started: set[asyncio.Task[U]] = set()

    async def feed() -> None:
        try:
            await room.acquire()
            async for item in source:
                task = asyncio.ensure_future(_call(function, item))
                started.add(task)
                tasks.put_nowait(task)
                await room.acquire()
        finally:
            tasks.put_nowait(None)

    feeder = asyncio.create_task(feed())
    try:
        while (task := await tasks.get()) is not None:
            result = await task
            started.discard(task)
            room.release()
            yield result
        await feeder
    finally:
        for pending in (feeder, *started):
            pending.cancel()
        # Their errors come from this cancellation; the error that counts was raised above.
        await asyncio.gather(feeder, *started, return_exceptions=True)


async def _call(function: Callable[[T], Awaitable[U]], item: T) -> U:
    return await function(item)
