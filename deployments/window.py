"""Flow control of streams between replicas, which Serve does not have: a producer yields a chunk only with a credit.

The consumer owns one ``Window`` actor for all its streams; the handle travels with each request. An actor dies with its owner, so
a consumer that is killed ends the work of its producers too.
"""

import asyncio
import uuid
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, cast

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from deployments.errors import Cancelled


class Window:
    """Credits of all streams of one consumer. A stream that is not open has ended: taking from it raises Cancelled."""

    def __init__(self) -> None:
        self._credits: dict[str, asyncio.Semaphore] = {}
        self._ended: dict[str, asyncio.Event] = {}

    async def open(self, stream: str, size: int) -> None:
        """Begins a stream with ``size`` room."""
        self._credits[stream] = asyncio.Semaphore(size)
        self._ended[stream] = asyncio.Event()

    async def take(self, stream: str) -> None:
        """Returns once the producer may make one more chunk."""
        room, ended = self._credits.get(stream), self._ended.get(stream)
        if room is None or ended is None:
            raise Cancelled("the consumer has closed the stream")
        await room.acquire()
        if ended.is_set():
            raise Cancelled("the consumer has closed the stream")

    async def give(self, stream: str) -> None:
        """The consumer has done with one chunk."""
        if stream in self._credits:
            self._credits[stream].release()

    async def ended(self, stream: str) -> None:
        """Returns when the consumer has closed the stream; fails when the consumer dies."""
        if stream in self._ended:
            await self._ended[stream].wait()

    async def close(self, stream: str) -> None:
        """Ends the stream, also for those that wait for a credit."""
        room, ended = self._credits.pop(stream, None), self._ended.pop(stream, None)
        if ended is not None and room is not None:
            ended.set()
            room.release()  # a producer has one request for a credit under way at most


@dataclass(frozen=True)
class Stream:
    """The producer's end of a stream: travels with the request."""

    window: Any
    name: str

    async def take(self) -> None:
        """Returns once there is room for one more chunk; raises Cancelled if nobody wants it any more."""
        await cast(Awaitable[None], self.window.take.remote(self.name))

    async def ended(self) -> None:
        """Returns, or fails, as soon as the consumer no longer wants the stream."""
        await cast(Awaitable[None], self.window.ended.remote(self.name))


class WindowOwner:
    """The consumer's end: owns the actor, opens and closes streams."""

    def __init__(self) -> None:
        self._actor = self._start()

    def _start(self) -> Any:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        actor: Any = ray.remote(Window)
        return actor.options(num_cpus=0, max_concurrency=1000, scheduling_strategy=here).remote()

    def stream(self) -> Stream:
        """A stream that is yet to be opened."""
        return Stream(self._actor, uuid.uuid4().hex)

    async def open(self, stream: Stream, size: int) -> None:
        """Gives ``stream`` room for ``size`` chunks. An actor that was lost is replaced for the streams to come."""
        try:
            await stream.window.open.remote(stream.name, size)
        except ray.exceptions.RayActorError:
            self._actor = self._start()
            raise

    def give(self, stream: Stream) -> None:
        """One chunk is done with."""
        stream.window.give.remote(stream.name)

    def close(self, stream: Stream) -> None:
        """The stream has ended, or is no longer wanted."""
        stream.window.close.remote(stream.name)
