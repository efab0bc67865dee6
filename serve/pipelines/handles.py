"""The model deployments as pipelines see them: one typed method for each call.

Every call is cancelled when its caller is, ends early when the model cannot start, and reports its
times to the request's meter.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from ray.serve.exceptions import BackPressureError
from ray.serve.handle import DeploymentHandle

from deployments.flow_control import ConsumerEnd, ProducerEnd
from deployments.telemetry import tracing
from deployments.telemetry.origin import current_origin
from deployments.wire import (
    Analysis,
    Face,
    Finished,
    FrameChunk,
    Frames,
    Image,
    Reference,
    References,
    SwapOptions,
    SwappedChunk,
    VideoRequest,
)
from serve.models import FACE_SWAPPER, VIDEO_MODELS, Model
from serve.pipelines.context import RequestContext
from serve.pipelines.errors import ModelUnavailable
from serve.pipelines.meter import Meter
from serve.pipelines.readiness import Readiness, State, StateUnknown

T = TypeVar("T")

QUEUE_RETRY_S = 0.5
"""Seconds after which a request that has already begun tries a full queue again."""
START_POLL_S = 2.0
"""Seconds between checks whether the model has failed to start."""

OnFullQueue = Literal["refuse", "retry"]
"""What a call does when the queue is full: refuse the request, or try again until there is room."""


class ModelHandle:
    """A model deployment."""

    def __init__(self, model: Model, handle: DeploymentHandle[Any], readiness: Readiness) -> None:
        self.model = model
        # Serve makes a handle's router at its first use, and asks Ray's head for it while the event
        # loop waits. That must not happen in a request.
        self._handle = handle.options(stream=False)
        self._readiness = readiness

    async def warm(self) -> None:
        """Return when a replica is up; raise ModelUnavailable if it cannot start."""
        await self._call(self._handle.warm)

    async def _call(self, method: DeploymentHandle[Any], *args: object) -> tuple[Any, bool]:
        """Return the result of a method and whether the model was ready the whole time."""
        response: Any = method.remote(*args)
        task = asyncio.ensure_future(_as_coroutine(response))
        try:
            return await self._unless_start_fails(task)
        finally:
            if not task.done():
                response.cancel()
            _abandon(task)

    async def _unless_start_fails(self, task: "asyncio.Future[T]") -> tuple[T, bool]:
        """Return the task's result and whether the model was ready the whole time.

        Raise ModelUnavailable as soon as the model is known to have failed to start.
        """
        seen: set[State] = set()
        failure = asyncio.ensure_future(self._start_failure(seen))
        try:
            # The controller may be slow or away. The task must not wait for its answer.
            ends: set[asyncio.Future[Any]] = {task, failure}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise failure.result()
            return task.result(), seen <= {"ready"}
        finally:
            failure.cancel()

    async def _start_failure(self, seen: set[State]) -> ModelUnavailable:
        """Return an error once the model is known to have failed to start; note its states."""
        while True:
            await asyncio.sleep(START_POLL_S)
            try:
                state = (await self._readiness.of(self.model.name)).state
            except StateUnknown:
                continue  # running models do not need the controller
            seen.add(state)
            if state == "failed":
                return ModelUnavailable(f"the model {self.model.name} could not be started; /readyz says why", retry_after_s=60)


class FaceSwapperHandle(ModelHandle):
    """The deployment that finds and replaces faces."""

    async def identify(self, images: Sequence[Image], field: str, meter: Meter) -> Reference:
        """Return the person that ``images`` show; raise NoFaceFound, which names ``field``."""
        reference: Reference = await self._timed("identify", images, field, meter=meter, on_full_queue="refuse")
        return reference

    async def analyse(self, frames: Frames, meter: Meter) -> Analysis:
        """Return the faces in each of ``frames``, the largest face first."""
        analysis: Analysis = await self._timed("analyse", frames, meter=meter, on_full_queue="retry")
        return analysis

    async def swap(
        self,
        chunk: FrameChunk,
        faces: tuple[tuple[Face, ...], ...],
        *,
        reference: References,
        options: SwapOptions,
        meter: Meter,
    ) -> SwappedChunk:
        """Return ``chunk`` with the ``faces`` of each frame replaced by ``reference``."""
        swapped: SwappedChunk = await self._timed("swap", chunk, faces, reference, options, meter=meter, on_full_queue="retry")
        return swapped

    async def _timed(self, name: str, *args: object, meter: Meter, on_full_queue: OnFullQueue) -> Any:
        """Return the result of a method and add its ``seconds`` to ``meter``.

        A request that has not begun may be refused by a full queue, and the time that it waits is a
        phase of its own. One that has begun tries again, so that no work of others is lost.
        """
        start = time.perf_counter()
        with tracing.span(f"{self.model.name} {name}", kind="client"):
            while True:
                try:
                    result, was_ready = await self._call(getattr(self._handle, name), *args, current_origin())
                    break
                except BackPressureError:
                    if on_full_queue == "refuse":
                        raise
                    await asyncio.sleep(QUEUE_RETRY_S)
        meter.add_work(self.model.name, result.seconds)
        if on_full_queue == "refuse":
            waited = max(0.0, time.perf_counter() - start - result.seconds)
            meter.add_wait(self.model.name, waited, was_ready=was_ready)
        return result


class VideoHandle(ModelHandle):
    """A deployment that generates videos.

    ``window`` is the number of chunks that it may be ahead of its consumer.
    """

    def __init__(
        self,
        model: Model,
        handle: DeploymentHandle[Any],
        readiness: Readiness,
        *,
        consumer: ConsumerEnd,
        window: int,
    ) -> None:
        super().__init__(model, handle, readiness)
        self._streams = handle.options(stream=True)
        self._consumer = consumer
        self._window = window

    @asynccontextmanager
    async def generate(
        self, request: VideoRequest, context: RequestContext, held_chunks: int = 0
    ) -> AsyncIterator["VideoStream"]:
        """Stream the chunks of a video as they are decoded. Leaving the block stops the model.

        ``held_chunks`` is the number of chunks that the consumer holds back before it releases the
        first one; the credit window grows by as much.
        """
        start = time.perf_counter()
        span = tracing.begin(f"{self.model.name} generate", kind="client")
        stream = self._consumer.open(self._window + held_chunks)
        events: Any = None
        first: asyncio.Future[Any] | None = None
        try:
            events = self._streams.generate.remote(request, stream, replace(current_origin(), trace=span.trace))
            first = asyncio.ensure_future(_as_coroutine(anext(events)))
            started, was_ready = await self._unless_start_fails(first)
            context.meter.add_wait(self.model.name, time.perf_counter() - start, was_ready=was_ready)
            context.meter.begun.add(self.model.name)
            context.observe(started)
            yield VideoStream(_chunks(events, self.model.name, context), self._consumer, stream)
        except BaseException as error:
            span.fail(type(error).__name__)
            raise
        finally:
            if first is not None:
                events.cancel()
                _abandon(first)
            self._consumer.close(stream)
            span.end()


@dataclass(frozen=True)
class VideoStream:
    """The chunks of one video, each of which is released once its consumer is done with it."""

    chunks: AsyncGenerator[FrameChunk, None]
    _consumer: ConsumerEnd
    _stream: ProducerEnd

    def release(self) -> None:
        """Give the model the credit for one more chunk."""
        self._consumer.release(self._stream)


async def _chunks(events: Any, model: str, context: RequestContext) -> AsyncGenerator[FrameChunk, None]:
    """Yield the chunks among ``events``; report progress to the observer and times to the meter."""
    async for event in events:
        if isinstance(event, FrameChunk):
            yield event
        elif isinstance(event, Finished):
            context.meter.add_work(model, sum(event.seconds.values()))
            context.meter.acceleration = event.acceleration
            context.meter.loras = event.loras
            for name in ("denoise", "decode"):
                context.meter.add_phase(name, event.seconds.get(name, 0.0))
        else:
            context.observe(event)


@dataclass(frozen=True)
class Handles:
    """The handles of all models: video models by their API names, and the face swapper."""

    video: dict[str, VideoHandle]
    face_swapper: FaceSwapperHandle

    def of(self, model: str) -> ModelHandle:
        """Return the handle of a model by its API name."""
        return self.face_swapper if model == FACE_SWAPPER.name else self.video[model]


def make_handles(
    deployments: dict[str, DeploymentHandle[Any]], readiness: Readiness, consumer: ConsumerEnd, *, window: int
) -> Handles:
    """Wrap Serve's handles, which are given by the models' API names."""
    video = {
        model.name: VideoHandle(model, deployments[model.name], readiness, consumer=consumer, window=window)
        for model in VIDEO_MODELS
    }
    return Handles(video, FaceSwapperHandle(FACE_SWAPPER, deployments[FACE_SWAPPER.name], readiness))


def _abandon(task: "asyncio.Future[Any]") -> None:
    """Cancel a call whose result nobody needs any more.

    Serve cancels the calls of a request that is cancelled. They then end with an error of Serve's,
    which asyncio reports if nobody looks at it.
    """
    task.cancel()
    task.add_done_callback(lambda ended: None if ended.cancelled() else ended.exception())


async def _as_coroutine(awaitable: Awaitable[T]) -> T:
    """Await ``awaitable``: asyncio makes tasks of coroutines only."""
    return await awaitable
