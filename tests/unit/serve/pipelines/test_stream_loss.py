"""A video whose connection for credits breaks, over the real ends of flow control."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from deployments import hardware
from deployments.engine import EventSink, Usage
from deployments.errors import Cancelled
from deployments.flow_control import ConsumerEnd, ProducerEnd
from deployments.settings import VideoSettings
from deployments.video_deployment import VideoDeployment
from deployments.wire import Finished, FrameChunk, VideoEvent, VideoRequest
from serve.models import WAN26
from serve.pipelines.context import RequestContext
from serve.pipelines.handles import VideoHandle
from serve.pipelines.readiness import Readiness
from serve.pipelines.requests import GenerateVideo
from serve.pipelines.result import Result
from serve.pipelines.video import VideoPipeline
from tests.unit.serve.fake_graph import FakeGraph, FakeHandle, FakeReadiness
from tests.unit.serve.pipelines.request_builders import make_context, pipelines_over, video_request

HOST = "127.0.0.1"
CHUNKS, WINDOW = 5, 2
REQUEST = VideoRequest("a cat", "", width=16, height=16, num_frames=CHUNKS, steps=1, cfg=1.0, seed=1)


class Relay:
    """A network between the two ends, which can be cut: it passes on bytes in both directions."""

    def __init__(self) -> None:
        self._ends: tuple[asyncio.StreamWriter, ...] = ()
        self.connections = 0

    @asynccontextmanager
    async def to(self, stream: ProducerEnd) -> AsyncIterator[ProducerEnd]:
        """Return a way to the consumer that leads through this relay."""
        ended = asyncio.Event()

        async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(stream.host, stream.port)
            self.connections += 1
            self._ends = (writer, back)
            await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
            ended.set()

        async with await asyncio.start_server(connect, HOST, 0) as server:
            yield ProducerEnd(HOST, server.sockets[0].getsockname()[1], stream.token)
            await ended.wait()

    def cut(self) -> None:
        """Break the newest connection."""
        for end in self._ends:
            end.transport.abort()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(100):
            writer.write(data)
    except OSError:  # the connection was cut
        pass
    finally:
        writer.close()


class Engine:
    """An engine that makes chunks of one frame as fast as its credits allow."""

    hardware = "a fake GPU"

    def usage(self) -> Usage:
        """Say that nothing was cached."""
        return Usage()

    def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
        """Make a video."""
        for index in range(request.num_frames):
            sink.ready()
            sink.chunk(FrameChunk(index, np.full((1, 16, 16, 3), index, np.uint8)))
        return Finished({})


class Model:
    """A video model that cuts its connection after the first chunk of its first ``cuts`` videos."""

    def __init__(self, cuts: int) -> None:
        self.relay = Relay()
        self.chunks: list[int] = []
        """How many chunks were passed on, for each video."""
        self._cuts = cuts
        self._deployment = VideoDeployment(Engine(), VideoSettings(), "wan2.6")

    async def generate(
        self, request: VideoRequest, stream: ProducerEnd, origin: object = None
    ) -> AsyncGenerator[VideoEvent, None]:
        """Yield the events of a video."""
        self.chunks.append(0)
        async with (
            self.relay.to(stream) as relayed,
            aclosing(self._deployment.generate(request, relayed)) as events,
        ):
            async for event in events:
                if isinstance(event, FrameChunk):
                    self.chunks[-1] += 1
                    if len(self.chunks) <= self._cuts:
                        self.relay.cut()
                yield event


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a replica says of its hardware from going to Ray."""
    monkeypatch.setattr(hardware, "publish", lambda text: None)


class Indices:
    """A pipeline whose result has the index of each chunk that came."""

    async def run(self, model: VideoHandle, _: GenerateVideo, context: RequestContext) -> Result:
        received = []
        async with model.generate(REQUEST, context) as video:
            async for chunk in video.chunks:
                received.append(int(chunk.frames[0, 0, 0, 0]))
                video.release()
        return Result(bytes(received), "video/mp4", len(received))


async def attempt(model: Model) -> Result:
    """Ask for a video as a request does, by a pipeline of ``Indices``."""
    consumer = ConsumerEnd(HOST)
    await consumer.start()
    readiness = cast(Readiness, FakeReadiness())
    handle = VideoHandle(WAN26, cast(Any, FakeHandle(model)), readiness, consumer=consumer, window=WINDOW)
    pipelines = pipelines_over(FakeGraph())
    handles = replace(pipelines.handles, video={WAN26.name: handle})
    pipelines = replace(pipelines, handles=handles, video=cast(VideoPipeline, Indices()))
    try:
        async with asyncio.timeout(60):
            return await pipelines.run(WAN26.name, video_request(), make_context())
    finally:
        await consumer.stop()


async def test_a_broken_connection_costs_one_attempt_and_the_next_one_has_its_own() -> None:
    model = Model(cuts=1)
    result = await attempt(model)
    assert (result.attempts, result.data) == (2, bytes(range(CHUNKS)))
    assert model.relay.connections == 2
    assert model.chunks[0] <= WINDOW + 1, "the engine stopped with the connection"


async def test_connections_that_break_in_every_attempt_end_the_request() -> None:
    model = Model(cuts=9)
    with pytest.raises(Cancelled):
        await attempt(model)
    assert model.relay.connections == len(model.chunks) == 2
