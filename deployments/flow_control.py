"""Flow control for streams between replicas, which Serve lacks.

A producer needs a credit from its consumer for each chunk. The consumer owns one ``CreditWindow``
actor for all its streams; the actor's handle travels with each request. An actor dies with its
owner, so killing a consumer also ends the work of its producers.
"""

import asyncio
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deployments.errors import Cancelled


class CreditWindow:
    """The credits of all streams of one consumer. A stream that is not open counts as closed."""

    def __init__(self) -> None:
        self._credits: dict[str, asyncio.Semaphore] = {}
        self._closed: dict[str, asyncio.Event] = {}

    async def open(self, stream: str, size: int) -> None:
        """Open a stream with credits for ``size`` chunks."""
        self._credits[stream] = asyncio.Semaphore(size)
        self._closed[stream] = asyncio.Event()

    async def acquire(self, stream: str) -> None:
        """Wait for a credit, which allows one more chunk.

        Raises Cancelled once the stream is closed.
        """
        semaphore, closed = self._credits.get(stream), self._closed.get(stream)
        if semaphore is None or closed is None:
            raise Cancelled("the consumer has closed the stream")
        await semaphore.acquire()
        if closed.is_set():
            raise Cancelled("the consumer has closed the stream")

    async def release(self, stream: str) -> None:
        """Return the credit of a chunk that the consumer has processed."""
        if stream in self._credits:
            self._credits[stream].release()

    async def ended(self, stream: str) -> None:
        """Wait until the consumer closes the stream. If the consumer dies, the call fails."""
        if stream in self._closed:
            await self._closed[stream].wait()

    async def close(self, stream: str) -> None:
        """Close the stream, also for a producer that waits for a credit."""
        semaphore, closed = self._credits.pop(stream, None), self._closed.pop(stream, None)
        if closed is not None and semaphore is not None:
            closed.set()
            # This wakes the one request for a credit that a producer may have pending.
            semaphore.release()


@dataclass(frozen=True)
class ProducerEnd:
    """The producer's end of a stream. It travels with the request."""

    window: Any
    name: str

    async def acquire(self) -> None:
        """Wait until there is room for one more chunk.

        Raises Cancelled once the stream is closed.
        """
        await cast(Awaitable[None], self.window.acquire.remote(self.name))

    async def closed(self) -> None:
        """Wait until the consumer closes the stream. If the consumer dies, the call fails."""
        await cast(Awaitable[None], self.window.ended.remote(self.name))


class ConsumerEnd:
    """The consumer's end of all its streams. It owns the window actor."""

    def __init__(self) -> None:
        self._actor = self._start()

    def _start(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor: Any = ray.remote(CreditWindow)
        return actor.options(num_cpus=0, max_concurrency=1000, scheduling_strategy=here).remote()

    def new_stream(self) -> ProducerEnd:
        """Return a new stream, which must still be opened."""
        return ProducerEnd(self._actor, uuid.uuid4().hex)

    async def open(self, stream: ProducerEnd, size: int) -> None:
        """Open ``stream`` with credits for ``size`` chunks.

        Raises RayActorError if the actor is lost; streams created afterwards use a new actor.
        """
        try:
            await stream.window.open.remote(stream.name, size)
        except ray.exceptions.RayActorError:
            self._actor = self._start()
            raise

    def release(self, stream: ProducerEnd) -> None:
        """Return the credit of one chunk that has been processed."""
        stream.window.release.remote(stream.name)

    def close(self, stream: ProducerEnd) -> None:
        """Close ``stream``, whether it has ended or is no longer needed."""
        stream.window.close.remote(stream.name)
