"""Traces of engine calls."""

import gzip
import json
from typing import Any

import numpy as np
import pytest

from deployments import hardware
from deployments.engine import EventSink, Usage
from deployments.engine_threads import CancelFlag
from deployments.errors import Cancelled, PromptTooLong
from deployments.replica.profiling import Unconsumed, trace
from deployments.settings import VideoSettings
from deployments.video_deployment import VideoDeployment
from deployments.wire import Finished, FrameChunk, Progress, VideoRequest

pytestmark = pytest.mark.slow  # torch takes seconds to import
REQUEST = VideoRequest("a cat", "", width=16, height=16, num_frames=9, steps=2, cfg=1.0, seed=1)


class TorchEngine:
    """Multiplies matrices, as an engine does, and yields a chunk."""

    hardware = "a CPU"

    def __init__(self) -> None:
        self.requests: list[VideoRequest] = []

    def usage(self) -> Usage:
        return Usage()

    def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
        import torch

        self.requests.append(request)
        if request.prompt == "too long":
            raise PromptTooLong("prompt", "too long")
        sink.progress(Progress("denoise", 1, 1))
        torch.ones(64, 48) @ torch.ones(48, 32)
        sink.ready()
        sink.chunk(FrameChunk(0, np.zeros((1, 16, 16, 3), np.uint8)))
        return Finished({})


@pytest.fixture
def deployment(monkeypatch: pytest.MonkeyPatch) -> VideoDeployment:
    monkeypatch.setattr(hardware, "publish", lambda text: None)
    return VideoDeployment(TorchEngine(), VideoSettings(), "wan26")


def events_of(data: bytes) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(gzip.decompress(data))["traceEvents"]
    return events


async def test_a_replica_gives_the_operators_of_one_video_with_their_shapes(deployment: VideoDeployment) -> None:
    events = events_of(await deployment.profile(REQUEST))
    shapes = [event["args"]["Input Dims"] for event in events if event.get("name") == "aten::mm"]
    assert [[64, 48], [48, 32]] in shapes


async def test_a_refused_request_has_no_trace(deployment: VideoDeployment) -> None:
    with pytest.raises(PromptTooLong):
        await deployment.profile(VideoRequest("too long", "", width=16, height=16, num_frames=9, steps=2, cfg=1.0, seed=1))
    deployment.check_health()


def test_a_call_that_fails_leaves_no_profiler_behind() -> None:
    with pytest.raises(ZeroDivisionError):
        trace(lambda: 1 / 0)
    assert events_of(trace(lambda: None)) is not None


def test_a_video_that_nobody_waits_for_any_more_ends() -> None:
    cancel = CancelFlag()
    sink = Unconsumed(cancel)
    sink.ready()
    cancel.set()
    for act in (sink.ready, lambda: sink.progress(Progress("denoise", 1, 2))):
        with pytest.raises(Cancelled):
            act()
