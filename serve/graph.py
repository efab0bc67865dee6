"""The deployments as a request sees them: calls and streams through their handles, cancelled when the request is."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from deployments.window import WindowOwner
from deployments.wire import Finished, FrameChunk, Progress, VideoEvent, VideoRequest
from serve.errors import busy
from serve.meter import Meter
from serve.readiness import Readiness, StateUnknown

T = TypeVar("T")
FULL_S = 0.5
"""When a request that is at work asks a full queue again."""
LOOK_S = 2.0
"""How often a request that waits for a model looks whether its start has failed."""


class Graph:
    """Handles by the API's model names. ``window``: chunks that a video model may be ahead of its consumer."""

    def __init__(self, handles: dict[str, DeploymentHandle[Any]], readiness: Readiness, window: int) -> None:
        self._handles = handles
        self._readiness = readiness
        self._windows = WindowOwner()
        self._window = window

    async def call(self, model: str, method: str, *args: object, meter: Meter, waits: bool = True) -> Any:
        """The result of a method, whose ``seconds`` go to ``meter``; so does the time before them, if the request ``waits`` for it.

        A cancelled caller cancels the call; raises Problem 503 if the model cannot start. A full queue refuses a request that is to wait
        in it; one that does not, for it is at work already, tries again until there is room.
        """
        asked = time.perf_counter()
        while True:
            try:
                result, was_ready = await self._ask(model, method, *args)
                break
            except BackPressureError:
                if waits:
                    raise
                await asyncio.sleep(FULL_S)
        meter.work(model, result.seconds)
        if waits:
            meter.phase("queue" if was_ready else "start", max(0.0, time.perf_counter() - asked - result.seconds))
        return result

    async def wake(self, model: str) -> None:
        """Returns when a replica of ``model`` is up; raises Problem 503 if it cannot start."""
        await self._ask(model, "warm")

    async def _ask(self, model: str, method: str, *args: object) -> tuple[Any, bool]:
        response = getattr(self._handles[model], method).remote(*args)
        task = asyncio.ensure_future(_awaited(response))
        try:
            return await self._unless_failed(model, task)
        finally:
            if not task.done():
                response.cancel()
                task.cancel()

    @asynccontextmanager
    async def video(
        self, model: str, request: VideoRequest, meter: Meter, on_progress: Callable[[Progress], None], held: int = 0
    ) -> AsyncIterator["VideoChunks"]:
        """The chunks of a video as they are made. Leaving the block stops the model.

        ``held``: chunks that the consumer holds back before it is done with its first one.
        """
        asked = time.perf_counter()
        stream = self._windows.stream()
        events: Any = None
        first: asyncio.Future[VideoEvent] | None = None
        try:
            await self._windows.open(stream, self._window + held)
            events = self._handles[model].options(stream=True).generate.remote(request, stream)
            first = asyncio.ensure_future(_awaited(anext(events)))
            _, was_ready = await self._unless_failed(model, first)
            meter.phase("queue" if was_ready else "start", time.perf_counter() - asked)

            async def chunks() -> AsyncGenerator[FrameChunk, None]:
                async for event in events:
                    if isinstance(event, FrameChunk):
                        yield event
                    elif isinstance(event, Finished):
                        meter.work(model, sum(event.seconds.values()))
                        meter.acceleration = event.acceleration
                        for name in ("denoise", "decode"):
                            meter.phase(name, event.seconds.get(name, 0.0))
                    else:
                        on_progress(event)

            yield VideoChunks(chunks(), lambda: self._windows.give(stream))
        finally:
            if first is not None:
                first.cancel()
                events.cancel()
            self._windows.close(stream)

    async def _unless_failed(self, model: str, task: "asyncio.Future[T]") -> tuple[T, bool]:
        """The task's result, and whether the model was ready all the time; gives up as soon as the model's start has failed."""
        was_ready = True
        while True:
            done, _ = await asyncio.wait({task}, timeout=LOOK_S)
            if done:
                return task.result(), was_ready
            try:
                state = await self._readiness.of(model)
            except StateUnknown:
                continue  # the controller is away; the models do not need it
            was_ready = was_ready and state.state == "ready"
            if state.state == "failed":
                raise busy(f"the model {model} could not be started; /readyz says why", 60)


@dataclass(frozen=True)
class VideoChunks:
    """The chunks of one video, and how to say that one is done with."""

    chunks: AsyncGenerator[FrameChunk, None]
    done_with_one: Callable[[], None]


async def _awaited(awaitable: Awaitable[T]) -> T:
    """A coroutine of what is merely awaitable: tasks are made of coroutines."""
    return await awaitable
