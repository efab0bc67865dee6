"""A sink that records events, and shortcuts to parts of an engine."""

import torch

from deployments.errors import Cancelled
from deployments.video.engine import WanEngine
from deployments.video.mode import Mode
from deployments.wire import FrameChunk, Progress, VideoRequest


class Recorder:
    """A sink that keeps all events, and raises ``Cancelled`` after ``stop_after`` of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[Progress | FrameChunk] = []
        self._stop_after = stop_after

    def progress(self, progress: Progress) -> None:
        self._record(progress)

    def ready(self) -> None:
        pass

    def chunk(self, chunk: FrameChunk) -> None:
        self._record(chunk)

    def _record(self, event: Progress | FrameChunk) -> None:
        if self._stop_after is not None and len(self.events) >= self._stop_after:
            raise Cancelled("the test has seen enough")
        self.events.append(event)

    @property
    def chunks(self) -> list[FrameChunk]:
        return [event for event in self.events if isinstance(event, FrameChunk)]


def latents_of(engine: WanEngine, request: VideoRequest) -> torch.Tensor:
    """Return the latents that ``engine`` denoises for ``request``."""
    return engine.sample(engine.start(request, Recorder()))


def text_mode_of(engine: WanEngine) -> Mode:
    """Return the engine's mode for requests without an image."""
    assert engine.text_mode is not None
    return engine.text_mode


def image_mode_of(engine: WanEngine) -> Mode:
    """Return the engine's mode for requests with an image."""
    assert engine.image_mode is not None
    return engine.image_mode
