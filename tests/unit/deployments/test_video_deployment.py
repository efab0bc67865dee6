"""Streaming of an engine's events, with a fake engine and a consumer in this process."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest

from deployments import hardware
from deployments.engine import EventSink, Usage
from deployments.errors import Cancelled, PromptTooLong, ReplicaStalled
from deployments.flow_control import ConsumerEnd
from deployments.settings import VideoSettings
from deployments.video_deployment import VideoDeployment
from deployments.wire import Finished, FrameChunk, Progress, VideoEvent, VideoRequest

REQUEST = VideoRequest("a cat", "", width=16, height=16, num_frames=9, steps=2, cfg=1.0, seed=1)


class FakeEngine:
    """Yields one progress event, then chunks of one frame for which it needs a credit each."""

    hardware = "a fake GPU"

    def __init__(self, chunks: int = 3) -> None:
        self.chunks = chunks
        self.chunks_yielded = 0
        self.ended = threading.Event()

    def usage(self) -> Usage:
        return Usage()

    def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
        try:
            if request.prompt == "too long":
                raise PromptTooLong("prompt", "too long")
            sink.progress(Progress("denoise", 1, 1))
            for index in range(self.chunks):
                sink.ready()
                sink.chunk(FrameChunk(index, np.full((1, 16, 16, 3), index, np.uint8)))
                self.chunks_yielded += 1
            return Finished({"denoise": 0.5})
        finally:
            self.ended.set()


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What replicas say of their hardware, which would go to Ray."""
    texts: list[str] = []
    monkeypatch.setattr(hardware, "publish", texts.append)
    return texts


def replica(engine: FakeEngine, **settings: Any) -> VideoDeployment:
    """Return a replica around ``engine``."""
    return VideoDeployment(engine, VideoSettings(**settings), "wan26")


@pytest.fixture
async def consumer() -> AsyncIterator[ConsumerEnd]:
    end = ConsumerEnd("127.0.0.1")
    await end.start()
    yield end
    await end.stop()


async def until(condition: threading.Event) -> None:
    for _ in range(200):
        if condition.is_set():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("the engine has not ended")


async def test_events_arrive_in_order_and_the_last_one_is_finished(consumer: ConsumerEnd) -> None:
    stream = consumer.open(3)
    events = [event async for event in replica(FakeEngine()).generate(REQUEST, stream)]
    assert events[:2] == [Progress("start", 1, 1), Progress("denoise", 1, 1)]
    chunks = [event for event in events if isinstance(event, FrameChunk)]
    assert [(chunk.index, int(chunk.frames[0, 0, 0, 0])) for chunk in chunks] == [(0, 0), (1, 1), (2, 2)]
    assert events[-1] == Finished({"denoise": 0.5})


async def test_the_engine_is_never_ahead_of_its_credits(consumer: ConsumerEnd) -> None:
    stream = consumer.open(2)
    engine = FakeEngine(chunks=10)
    events = replica(engine).generate(REQUEST, stream)
    seen = 0
    async for event in events:
        if isinstance(event, FrameChunk):
            seen += 1
            await asyncio.sleep(0.02)
            assert engine.chunks_yielded <= seen + 1
            consumer.release(stream)
    assert seen == 10


async def test_closing_the_stream_stops_an_engine_that_waits_for_a_credit(consumer: ConsumerEnd) -> None:
    stream = consumer.open(1)
    engine = FakeEngine(chunks=10)

    async def consume() -> None:
        async for event in replica(engine).generate(REQUEST, stream):
            if isinstance(event, FrameChunk):
                consumer.close(stream)

    with pytest.raises(Cancelled):
        await consume()
    await until(engine.ended)
    assert engine.chunks_yielded == 1


async def test_a_generator_that_is_closed_early_stops_its_engine_first(consumer: ConsumerEnd) -> None:
    stream = consumer.open(1)
    engine = FakeEngine(chunks=10)
    events = replica(engine).generate(REQUEST, stream)
    async for event in events:
        if isinstance(event, FrameChunk):
            break
    await events.aclose()
    assert engine.ended.is_set()
    assert engine.chunks_yielded == 1


async def test_what_a_video_has_used_is_reported_once_its_engine_has_ended(consumer: ConsumerEnd) -> None:
    """Also if nobody wants the rest of it: the engine must not work beside the next call."""

    class Engine(FakeEngine):
        def usage(self) -> Usage:
            ended_at_reports.append(self.ended.is_set())
            return Usage()

    ended_at_reports: list[bool] = []
    events = replica(Engine(chunks=10)).generate(REQUEST, consumer.open(1))
    assert ended_at_reports == [False]  # that of the replica's start
    async for event in events:
        if isinstance(event, FrameChunk):
            break
    await events.aclose()
    assert ended_at_reports == [False, True]


async def test_an_engines_refusal_reaches_the_consumer(consumer: ConsumerEnd) -> None:
    stream = consumer.open(1)
    request = VideoRequest("too long", "", width=16, height=16, num_frames=9, steps=2, cfg=1.0, seed=1)
    with pytest.raises(PromptTooLong):
        async for _ in replica(FakeEngine()).generate(request, stream):
            pass


@pytest.mark.slow
async def test_a_deployment_publishes_its_hardware_and_reports_a_stalled_engine(
    consumer: ConsumerEnd, published: list[str]
) -> None:
    class Wedged(FakeEngine):
        def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
            time.sleep(0.4)
            return Finished({})

    deployment = replica(Wedged(), stall_timeout_s=0.1)
    assert published == ["a fake GPU"]
    await deployment.warm()
    deployment.check_health()
    stream = consumer.open(1)

    async def consume() -> list[VideoEvent]:
        return [event async for event in deployment.generate(REQUEST, stream)]

    task = asyncio.create_task(consume())
    await asyncio.sleep(0.2)
    with pytest.raises(ReplicaStalled):
        deployment.check_health()
    assert await task == [Progress("start", 1, 1), Finished({})]
    deployment.check_health()


@pytest.mark.parametrize(("runs_on", "lower"), [("CPU", True), ("a fake GPU", False)])
async def test_videos_on_a_cpu_step_back_behind_other_work(runs_on: str, lower: bool, consumer: ConsumerEnd) -> None:
    """All models share the cores then, and a swap takes a moment only."""
    niceness: list[int] = []

    class Engine(FakeEngine):
        hardware = runs_on

        def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
            niceness.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().generate(request, sink)

    stream = consumer.open(8)
    async for _ in replica(Engine()).generate(REQUEST, stream):
        pass
    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert (niceness[0] > before) == (lower and before < 19)
