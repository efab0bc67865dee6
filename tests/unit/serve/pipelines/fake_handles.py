"""Handles of deployments that answer as a test wants."""

from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

from deployments.flow_control import ConsumerEnd
from deployments.wire import FrameChunk, VideoRequest
from serve.models import FACE_SWAPPER, WAN26
from serve.pipelines.context import RequestContext
from serve.pipelines.handles import FaceSwapperHandle, VideoHandle
from serve.pipelines.readiness import Readiness
from tests.unit.serve.fake_graph import FakeConsumer, FakeReadiness, FakeStream

REQUEST = VideoRequest(
    prompt="a cat", negative_prompt="", width=64, height=48, num_frames=9, steps=2, cfg=4.0, seed=7, image=None
)


def swapper(handle: object, readiness: FakeReadiness | None = None) -> FaceSwapperHandle:
    return FaceSwapperHandle(FACE_SWAPPER, cast(Any, handle), cast(Readiness, readiness or FakeReadiness()))


class StreamHandle:
    """A handle to a video model that keeps the stream which it hands out."""

    def __init__(self, events: Callable[..., AsyncGenerator[Any, None]]) -> None:
        self._events = events
        self.streams: list[FakeStream] = []

    def options(self, *, stream: bool) -> "StreamHandle":
        """Return itself: only its generator is called."""
        return self

    @property
    def generate(self) -> "StreamHandle":
        """The method that generates a video."""
        return self

    def remote(self, request: VideoRequest, stream: object, origin: object) -> FakeStream:
        """Return the stream of events."""
        self.streams.append(FakeStream(self._events(request, stream)))
        return self.streams[-1]


def video_handle(
    handle: StreamHandle, consumer: FakeConsumer, window: int = 4, readiness: FakeReadiness | None = None
) -> VideoHandle:
    state = cast(Readiness, readiness or FakeReadiness())
    return VideoHandle(WAN26, cast(Any, handle), state, consumer=cast(ConsumerEnd, consumer), window=window)


async def receive(handle: VideoHandle, context: RequestContext, held_chunks: int = 0) -> list[FrameChunk]:
    """Return all chunks of a video, each of which is released."""
    chunks = []
    async with handle.generate(REQUEST, context, held_chunks) as video:
        async for chunk in video.chunks:
            chunks.append(chunk)
            video.release()
    return chunks
