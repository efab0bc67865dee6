"""What a video engine is to the deployment that drives it."""

from typing import Protocol

from deployments.wire import Finished, FrameChunk, Progress, VideoRequest


class Sink(Protocol):
    """Where an engine's events go. Every method raises ``Cancelled`` once the work is no longer wanted."""

    def progress(self, progress: Progress) -> None:
        """Takes a sign of progress."""

    def ready(self) -> None:
        """Blocks until the consumer has room for one more chunk."""

    def chunk(self, chunk: FrameChunk) -> None:
        """Takes frames."""


class VideoEngine(Protocol):
    """What a video deployment drives, from a worker thread."""

    @property
    def hardware(self) -> str:
        """What the models run on, in words."""

    def generate(self, request: VideoRequest, sink: Sink) -> Finished:
        """Makes the video of ``request``; every event but the last goes to ``sink``.

        Raises RequestRefused for what the caller must mend and Cancelled when ``sink`` does.
        """
