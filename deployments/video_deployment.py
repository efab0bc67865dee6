"""What the two video deployments have in common: they stream an engine's events, in turn, and can be found unhealthy."""

from collections.abc import AsyncIterator
from typing import Any

from deployments import hardware
from deployments.settings import VideoSettings
from deployments.turns import Turns
from deployments.video.engine import VideoEngine
from deployments.video_stream import stream_video
from deployments.window import Stream
from deployments.wire import VideoEvent, VideoRequest

OPTIONS: dict[str, Any] = {
    "max_ongoing_requests": 1,  # of one GPU; the others wait where the queue limit sees them
    "max_queued_requests": 32,
    "graceful_shutdown_timeout_s": 1800,  # a video takes minutes
    "health_check_period_s": 10,
    "health_check_timeout_s": 30,
}
"""Serve options of a video deployment; a Serve config file may override each, in place."""


class VideoDeployment:
    """A Ray Serve deployment around a video engine."""

    def __init__(self, engine: VideoEngine, settings: VideoSettings) -> None:
        self._engine = engine
        self._turns = Turns(settings.concurrency, settings.stall_timeout_s)
        hardware.publish(engine.hardware)

    async def generate(self, request: VideoRequest, stream: Stream) -> AsyncIterator[VideoEvent]:
        """Yields the events of one video; see ``stream_video``."""
        async for event in stream_video(self._engine, request, stream, self._turns):
            yield event

    async def warm(self) -> None:
        """Does nothing: being called brings a replica up."""

    def check_health(self) -> None:
        """Raises if the engine has stalled; Serve then replaces the replica."""
        self._turns.check_health()
