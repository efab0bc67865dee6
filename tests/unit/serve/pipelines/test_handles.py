"""Calls of model deployments: full queues, failing starts, cancellation, times and credits."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, cast

import numpy as np
import pytest
from ray.serve.exceptions import BackPressureError

from deployments.errors import NoFaceFound
from deployments.flow_control import ConsumerEnd
from deployments.wire import Finished, FrameChunk, Progress, Reference, SwapOptions, SwappedChunk
from serve.models import FACE_SWAPPER, WAN26
from serve.pipelines import handles
from serve.pipelines.context import Step
from serve.pipelines.errors import ModelUnavailable
from serve.pipelines.handles import FaceSwapperHandle, ModelHandle, VideoHandle
from serve.pipelines.meter import Meter
from serve.pipelines.readiness import ModelState, Readiness
from tests.unit.serve.fake_graph import (
    FakeConsumer,
    FakeFaceSwapper,
    FakeGraph,
    FakeHandle,
    FakeReadiness,
    FakeResponse,
    FakeVideoModel,
    make_face,
)
from tests.unit.serve.pipelines.fake_handles import REQUEST, StreamHandle, receive, swapper, video_handle
from tests.unit.serve.pipelines.request_builders import make_context

FRAMES = np.zeros((1, 48, 64, 3), np.uint8)


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handles, "QUEUE_RETRY_S", 0.001)
    monkeypatch.setattr(handles, "START_POLL_S", 0.001)


class TrackedResponse(FakeResponse):
    """A response that remembers whether it was cancelled."""

    cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
        super().cancel()


class TrackedHandle:
    """A handle with one method, which any name calls; it keeps the responses."""

    def __init__(self, method: Callable[..., Awaitable[Any]]) -> None:
        self._method = method
        self.responses: list[TrackedResponse] = []

    def options(self, *, stream: bool) -> "TrackedHandle":
        """Return itself: its method is no generator."""
        assert not stream
        return self

    def __getattr__(self, name: str) -> "TrackedHandle":
        return self

    def remote(self, *args: object) -> TrackedResponse:
        """Call the method."""
        self.responses.append(TrackedResponse(self._method(*args)))
        return self.responses[-1]


def swapped(*_: object) -> SwappedChunk:
    return SwappedChunk(0, FRAMES, 0.5, "none")


def full_twice() -> TrackedHandle:
    """Return a handle whose queue has room at the third call."""
    calls = 0

    async def method(*args: object) -> SwappedChunk:
        nonlocal calls
        calls += 1
        if calls < 3:
            raise BackPressureError(num_queued_requests=9, max_queued_requests=8)
        return swapped()

    return TrackedHandle(method)


async def swap(handle: FaceSwapperHandle, meter: Meter) -> SwappedChunk:
    reference = Reference(FRAMES[0], make_face())
    return await handle.swap(FrameChunk(0, FRAMES), ((make_face(),),), reference=reference, options=SwapOptions(), meter=meter)


async def test_a_request_at_work_does_not_fail_because_of_a_full_queue() -> None:
    """Minutes of a video model's work would be lost with it."""
    handle, meter = full_twice(), Meter({})
    result = await swap(swapper(handle), meter)
    assert (result.seconds, len(handle.responses)) == (0.5, 3)
    assert meter.seconds == {"face-swapper": 0.5}, "only the call that was answered is charged"
    assert meter.phases == {}, "a request that has begun does not queue"


async def test_a_request_that_would_have_to_wait_is_refused() -> None:
    handle = full_twice()
    with pytest.raises(BackPressureError):
        await swapper(handle).identify([FRAMES[0]], "face", Meter({}))
    assert len(handle.responses) == 1


async def test_calls_of_the_face_swapper_arrive_with_their_arguments() -> None:
    deployment, meter = FakeFaceSwapper(), Meter({})
    handle = swapper(FakeHandle(deployment))
    white = np.full((48, 64, 3), 255, np.uint8)
    reference = await handle.identify([white], "face_image", meter)
    analysis = await handle.analyse(np.stack([white, white * 0]), meter)
    result = await handle.swap(
        FrameChunk(4, white[None] // 2), ((make_face(),),), reference=reference, options=SwapOptions(), meter=meter
    )
    assert deployment.identified == ["face_image"]
    assert [len(faces) for faces in analysis.faces] == [1, 0]
    assert (result.index, deployment.swapped) == (4, [4])
    np.testing.assert_array_equal(result.frames, white[None])
    assert meter.seconds == {"face-swapper": 3 * deployment.seconds}
    assert list(meter.phases) == ["queue"]


async def test_an_error_of_the_deployment_reaches_the_caller() -> None:
    deployment = FakeFaceSwapper()
    with pytest.raises(NoFaceFound) as refused:
        await swapper(FakeHandle(deployment)).identify([FRAMES[0]], "target_face", Meter({}))
    assert refused.value.field == "target_face"


async def test_a_call_ends_when_its_model_cannot_start() -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    state = FakeReadiness()
    assert state.states is not None
    state.states["face-swapper"] = ModelState("failed", 0, "FileNotFoundError: swapper.onnx")
    handle = TrackedHandle(never)
    with pytest.raises(ModelUnavailable, match="the model face-swapper could not be started; /readyz says why") as refused:
        await swapper(handle, state).warm()
    assert refused.value.retry_after_s == 60
    assert handle.responses[0].cancelled, "the call does not stay in the queue"


class Polls(FakeReadiness):
    """Readiness that sets an event when it has been asked ``count`` times."""

    def __init__(self, count: int, states: dict[str, ModelState] | None) -> None:
        super().__init__(states)
        self._left = count
        self.asked = asyncio.Event()

    async def all(self) -> dict[str, ModelState]:
        self._left -= 1
        if self._left == 0:
            self.asked.set()
        return await super().all()


@pytest.mark.parametrize(("states", "phase"), [(None, "queue"), ({"face-swapper": ModelState("starting", 0)}, "start")])
async def test_waiting_for_a_start_is_a_different_phase_than_waiting_in_a_queue(
    states: dict[str, ModelState] | None, phase: str
) -> None:
    """A controller that does not answer, here ``None``, is asked again and does no harm."""
    state = Polls(2, states)

    async def identify(*_: object) -> Reference:
        await state.asked.wait()
        return Reference(FRAMES[0], make_face(), 0.0)

    meter = Meter({})
    async with asyncio.timeout(60):
        await swapper(TrackedHandle(identify), state).identify([FRAMES[0]], "face", meter)
    assert list(meter.phases) == [phase]
    assert meter.phases[phase] > 0
    assert meter.started == ({"face-swapper"} if phase == "start" else set())
    meter.clear()
    assert meter.started == set()


class Silent(FakeReadiness):
    """Readiness of a controller that never answers."""

    def __init__(self) -> None:
        super().__init__(None)
        self.asked = asyncio.Event()

    async def all(self) -> dict[str, ModelState]:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def test_no_answer_of_a_model_waits_for_the_controller() -> None:
    state = Silent()

    async def identify(*_: object) -> Reference:
        await state.asked.wait()
        return Reference(FRAMES[0], make_face(), 0.0)

    async def events(*_: object) -> AsyncGenerator[Any, None]:
        await state.asked.wait()
        yield Progress("start", 1, 1)
        yield Finished({})

    async with asyncio.timeout(30):
        await swapper(TrackedHandle(identify), state).identify([FRAMES[0]], "face", Meter({}))
        state.asked.clear()
        assert await receive(video_handle(StreamHandle(events), FakeConsumer(), readiness=state), make_context()) == []


async def test_no_request_initialises_a_handle() -> None:
    """Serve asks Ray's head for it, and the event loop waits for the answer."""

    class Uninitialised:
        """A handle that is initialised by ``options``, in the time before requests come."""

        serving = False

        def __init__(self, deployment: object) -> None:
            self._deployment = deployment

        def options(self, *, stream: bool) -> FakeHandle:
            assert not self.serving
            return FakeHandle(self._deployment, stream=stream)

    swapping, video, state = FakeFaceSwapper(), FakeVideoModel(), cast(Readiness, FakeReadiness())
    faces = FaceSwapperHandle(FACE_SWAPPER, cast(Any, Uninitialised(swapping)), state)
    videos = VideoHandle(WAN26, cast(Any, Uninitialised(video)), state, consumer=cast(ConsumerEnd, FakeConsumer()), window=4)
    Uninitialised.serving = True
    await faces.warm()
    assert swapping.warmed == 1
    assert [chunk.index for chunk in await receive(videos, make_context())] == [0, 1, 5]


async def test_a_call_is_cancelled_together_with_its_caller() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work(*_: object) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    handle = TrackedHandle(work)
    call = asyncio.ensure_future(swapper(handle).warm())
    await began.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert handle.responses[0].cancelled
    async with asyncio.timeout(60):
        await ended.wait()


async def test_a_call_that_was_answered_is_not_cancelled() -> None:
    async def nothing(*_: object) -> None:
        return None

    handle = TrackedHandle(nothing)
    await ModelHandle(WAN26, cast(Any, handle), cast(Readiness, FakeReadiness())).warm()
    assert not handle.responses[0].cancelled


async def test_a_video_arrives_in_chunks_and_every_chunk_is_given_back_as_a_credit() -> None:
    steps: list[Step] = []
    model, consumer, context = FakeVideoModel(acceleration="cache"), FakeConsumer(), make_context(steps=steps)
    handle = StreamHandle(model.generate)
    chunks = await receive(video_handle(handle, consumer, window=4), context, held_chunks=5)
    assert [(chunk.index, len(chunk.frames)) for chunk in chunks] == [(0, 1), (1, 4), (5, 4)]
    assert model.requests == [REQUEST]
    assert (consumer.opened, consumer.released, consumer.closed) == ([9], 3, 1)
    assert steps == [Progress("start", 1, 1), Progress("denoise", 1, 2), Progress("denoise", 2, 2)]
    assert context.meter.seconds == {"wan26": pytest.approx(0.6)}
    assert context.meter.acceleration == "cache"
    assert context.meter.phases == {"queue": pytest.approx(0, abs=1), "denoise": 0.5, "decode": pytest.approx(0.1)}


async def test_a_consumer_that_fails_stops_the_model() -> None:
    async def fail(handle: VideoHandle) -> None:
        async with handle.generate(REQUEST, make_context()) as video:
            await anext(video.chunks)
            raise OSError("no space left")

    handle, consumer = StreamHandle(FakeVideoModel().generate), FakeConsumer()
    with pytest.raises(OSError, match="no space left"):
        await fail(video_handle(handle, consumer))
    assert handle.streams[0].cancelled
    assert consumer.closed == 1


async def test_a_video_that_has_not_begun_is_cancelled_together_with_its_caller() -> None:
    began = asyncio.Event()

    async def never(*_: object) -> AsyncGenerator[Any, None]:
        began.set()
        await asyncio.Event().wait()
        yield Finished({})

    handle, consumer = StreamHandle(never), FakeConsumer()
    call = asyncio.ensure_future(receive(video_handle(handle, consumer), make_context()))
    await began.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert handle.streams[0].cancelled
    assert consumer.closed == 1


async def test_a_video_model_that_cannot_start_ends_the_request() -> None:
    async def never(*_: object) -> AsyncGenerator[Any, None]:
        await asyncio.Event().wait()
        yield Finished({})

    handle, consumer = StreamHandle(never), FakeConsumer()
    failed = FakeReadiness({"wan26": ModelState("failed", 0)})
    with pytest.raises(ModelUnavailable, match="the model wan26 could not be started"):
        await receive(video_handle(handle, consumer, readiness=failed), make_context())
    assert handle.streams[0].cancelled
    assert consumer.closed == 1


async def test_a_window_that_cannot_be_opened_starts_no_video() -> None:
    class Broken(FakeConsumer):
        def open(self, size: int) -> str:
            raise RuntimeError("no port")

    model, consumer = FakeVideoModel(), Broken()
    handle = StreamHandle(model.generate)
    with pytest.raises(RuntimeError, match="no port"):
        await receive(video_handle(handle, consumer), make_context())
    assert (handle.streams, consumer.closed) == ([], 0)


async def test_the_handles_of_all_models_are_found_by_their_names_in_the_api() -> None:
    graph = FakeGraph()
    of = graph.handles().of
    for name, deployment in (("wan26", graph.wan26), ("wan22-gguf", graph.wan22), ("face-swapper", graph.swapper)):
        handle = of(name)
        assert handle.model.name == name
        await handle.warm()
        assert deployment.warmed == 1
    assert isinstance(of("wan26"), VideoHandle)
    assert isinstance(of("face-swapper"), FaceSwapperHandle)
