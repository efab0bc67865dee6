"""A graph without Ray: deployments that run in this process, behind handles like Serve's.

Everything above the handles is real: ``make_app(config, fake.handles(), fake.readiness)`` is the
whole ingress.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np

from deployments.errors import NoFaceFound
from deployments.flow_control import ConsumerEnd
from deployments.wire import (
    Analysis,
    Face,
    Finished,
    FrameChunk,
    Image,
    Progress,
    Reference,
    SwapOptions,
    SwappedChunk,
    VideoRequest,
)
from serve.models import MODELS
from serve.pipelines.handles import Handles, make_handles
from serve.pipelines.readiness import ModelState, Readiness, StateUnknown

WINDOW = 4


class FakeResponse:
    """What ``handle.method.remote(...)`` returns: awaited or cancelled."""

    def __init__(self, work: Awaitable[Any]) -> None:
        self._task = asyncio.ensure_future(work)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._task.__await__()

    def cancel(self) -> None:
        """Cancel the call."""
        self._task.cancel()


class FakeStream:
    """What ``handle.options(stream=True).method.remote(...)`` returns: an iterator of events."""

    def __init__(self, events: AsyncGenerator[Any, None]) -> None:
        self._events = events
        self.cancelled = False

    def __aiter__(self) -> "FakeStream":
        return self

    async def __anext__(self) -> Any:
        return await anext(self._events)

    def cancel(self) -> None:
        """Cancel the stream."""
        self.cancelled = True


class FakeMethod:
    """A method of a handle."""

    def __init__(self, call: Callable[..., Any], wrap: Callable[[Any], Any]) -> None:
        self._call = call
        self._wrap = wrap

    def remote(self, *args: object, **named: object) -> Any:
        """Call the method of the deployment."""
        return self._wrap(self._call(*args, **named))


class FakeHandle:
    """A Serve handle to a deployment in this process."""

    def __init__(self, deployment: object, *, stream: bool = False) -> None:
        self._deployment = deployment
        self._stream = stream

    def options(self, *, stream: bool) -> "FakeHandle":
        """Return a handle whose methods are generators."""
        return FakeHandle(self._deployment, stream=stream)

    def __getattr__(self, name: str) -> FakeMethod:
        return FakeMethod(getattr(self._deployment, name), FakeStream if self._stream else FakeResponse)


@dataclass
class FakeConsumer:
    """The consumer's end of flow control: counts credits instead of sending them."""

    started: bool = True
    opened: list[int] = field(default_factory=list)
    released: int = 0
    closed: int = 0

    async def start(self) -> None:
        """Note that the consumer listens."""
        self.started = True

    def open(self, size: int) -> str:
        """Note the size of the window, and return a name in place of the producer's end."""
        assert self.started, "a stream was opened before the consumer listened"
        self.opened.append(size)
        return f"stream-{len(self.opened)}"

    def release(self, stream: str) -> None:
        """Count a credit."""
        self.released += 1

    def close(self, stream: str) -> None:
        """Count the end of a stream."""
        self.closed += 1


@dataclass
class FakeReadiness:
    """The states that Serve's controller would report. ``states`` None: it does not answer."""

    states: dict[str, ModelState] | None = field(
        default_factory=lambda: {model.name: ModelState("ready", 1) for model in MODELS}
    )

    runner_state: ModelState = field(default_factory=lambda: ModelState("ready", 1))

    async def runner(self) -> ModelState:
        """Return the state of the Runner."""
        if self.states is None:
            raise StateUnknown
        return self.runner_state

    async def of(self, model: str) -> ModelState:
        """Return the state of one model."""
        return (await self.all())[model]

    async def all(self) -> dict[str, ModelState]:
        """Return the state of every model."""
        if self.states is None:
            raise StateUnknown
        return self.states


@dataclass
class FakeVideoModel:
    """A video model that yields frames whose grey value is the number of the chunk.

    ``error`` is raised instead of the first chunk; ``errors`` are used up first, one an attempt.
    """

    seconds: float = 0.5
    error: Exception | None = None
    errors: list[Exception] = field(default_factory=list)
    requests: list[VideoRequest] = field(default_factory=list)
    warmed: int = 0
    acceleration: str = ""
    gate: asyncio.Event | None = None
    """If it is set, chunks are made only once this event has happened."""
    third_chunk: asyncio.Event | None = None
    """If it is set, the third chunk is made only once this event has happened."""

    async def generate(self, request: VideoRequest, stream: object, origin: object = None) -> AsyncGenerator[Any, None]:
        """Yield the events of a video."""
        self.requests.append(request)
        yield Progress("start", 1, 1)
        error = self.errors.pop(0) if self.errors else self.error
        if error is not None:
            raise error
        for step in range(request.steps):
            yield Progress("denoise", step + 1, request.steps)
        if self.gate is not None:
            await self.gate.wait()
        index = 0
        while index < request.num_frames:
            count = 1 if index == 0 else 4
            if index == 5 and self.third_chunk is not None:
                await self.third_chunk.wait()
            frames = np.full((count, request.height, request.width, 3), 10 * (index + 1) % 256, np.uint8)
            yield FrameChunk(index, frames)
            index += count
        yield Finished({"denoise": self.seconds, "decode": self.seconds / 5}, self.acceleration)

    async def warm(self) -> None:
        """Count a call that brings a replica up."""
        self.warmed += 1


def make_face(box: tuple[float, float, float, float] = (10, 10, 50, 60)) -> Face:
    """Return a face with five landmarks in ``box`` and an embedding of length 1."""
    left, top, right, bottom = box
    across, down = right - left, bottom - top
    points = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]], np.float32)
    landmarks = (points * (across, down) + (left, top)).astype(np.float32)
    embedding = np.zeros(8, np.float32)
    embedding[0] = 1
    return Face(np.array(box, np.float32), landmarks, 0.9, embedding)


@dataclass
class FakeFaceSwapper:
    """A face swapper that finds ``faces`` in every frame and paints a swapped frame white.

    A frame that is black shows no face.
    """

    faces: tuple[Face, ...] = field(default_factory=lambda: (make_face(),))
    seconds: float = 0.25
    restorer: str = "none"
    errors: list[Exception] = field(default_factory=list)
    swapped: list[int] = field(default_factory=list)
    identified: list[str] = field(default_factory=list)
    options: list[SwapOptions] = field(default_factory=list)
    references: list[Image] = field(default_factory=list)
    warmed: int = 0

    async def identify(self, images: list[Image], field: str, origin: object = None) -> Reference:
        """Return the person in the first image; a black image shows nobody."""
        self._fail()
        self.identified.append(field)
        self.references.append(images[0])
        if not images[0].any():
            raise NoFaceFound(field, "no face found; send an image that shows one")
        return Reference(images[0], self.faces[0] if self.faces else make_face(), self.seconds)

    async def analyse(self, frames: Image, origin: object = None) -> Analysis:
        """Return the faces of every frame that is not black."""
        self._fail()
        return Analysis(tuple(self.faces if frame.any() else () for frame in frames), self.seconds, "fake")

    async def swap(
        self,
        chunk: FrameChunk,
        faces: tuple[tuple[Face, ...], ...],
        reference: Reference,
        options: SwapOptions,
        origin: object = None,
    ) -> SwappedChunk:
        """Return the chunk with each frame that has faces painted white."""
        self._fail()
        self.swapped.append(chunk.index)
        self.options.append(options)
        frames = chunk.frames.copy()
        for frame, found in zip(frames, faces, strict=True):
            if found:
                frame[:] = 255
        return SwappedChunk(chunk.index, frames, self.seconds, self.restorer if options.restore else "none")

    async def warm(self) -> None:
        """Count a call that brings a replica up."""
        self.warmed += 1

    def _fail(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


@dataclass
class FakeGraph:
    """All three models, the credits and the readiness of a service."""

    wan26: FakeVideoModel = field(default_factory=FakeVideoModel)
    wan22: FakeVideoModel = field(default_factory=FakeVideoModel)
    swapper: FakeFaceSwapper = field(default_factory=FakeFaceSwapper)
    consumer: FakeConsumer = field(default_factory=FakeConsumer)
    state: FakeReadiness = field(default_factory=FakeReadiness)

    @property
    def readiness(self) -> Readiness:
        """The readiness, as the type that the ingress takes."""
        return cast(Readiness, self.state)

    def handles(self) -> Handles:
        """Return the real typed handles over the fake deployments."""
        deployments: dict[str, Any] = {
            "wan26": FakeHandle(self.wan26),
            "wan22-gguf": FakeHandle(self.wan22),
            "face-swapper": FakeHandle(self.swapper),
        }
        return make_handles(deployments, self.readiness, cast(ConsumerEnd, self.consumer), window=WINDOW)
