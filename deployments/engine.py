"""The protocols between a video deployment and the engine that it drives."""

from dataclasses import dataclass
from typing import Protocol

from deployments.wire import Finished, FrameChunk, Progress, VideoRequest


class EventSink(Protocol):
    """Receives an engine's events. Every method may raise ``Cancelled``, which ends the work."""

    def progress(self, progress: Progress) -> None:
        """Receive the progress of a stage."""

    def ready(self) -> None:
        """Block until the consumer has room for another chunk."""

    def chunk(self, chunk: FrameChunk) -> None:
        """Receive decoded frames."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What an engine has used since it was built, and what it holds now."""

    prompt_hits: int = 0
    """Prompts whose embedding was cached."""
    prompt_misses: int = 0
    lora_hits: int = 0
    """LoRA files that were loaded already when a request used them."""
    lora_loads: int = 0
    gpu_bytes: tuple[int, ...] = ()
    """The reserved memory of each GPU in bytes."""


class VideoEngine(Protocol):
    """Generates videos; a video deployment calls it from a worker thread."""

    @property
    def hardware(self) -> str:
        """A description of what the models run on."""

    def usage(self) -> Usage:
        """Return what the engine has used; may be called from any thread."""

    def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
        """Generate the video of ``request``; every event except the returned one goes to ``sink``.

        Raises ``RequestRefused`` for what the caller can fix, and ``Cancelled`` when ``sink`` does.
        """
