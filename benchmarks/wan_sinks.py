"""Sinks for benchmarks: one with a clock, one with an encoder, one that cancels."""

import itertools
import queue
import statistics
import threading
import time
from fractions import Fraction

from deployments.errors import Cancelled
from deployments.wire import FrameChunk, Frames, Progress
from serve.media.encode.mp4 import Mp4Encoder


class Timer:
    """A sink that records when events come."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {"encode": [], "denoise": [], "decode": [], "chunk": []}
        self.steps: list[float] = []

    def progress(self, progress: Progress) -> None:
        """See ``EventSink``."""
        now = time.perf_counter()
        self.times[progress.stage].append(now)
        # A step may be reported twice.
        if progress.stage == "denoise" and progress.step == len(self.steps):
            self.steps.append(now)

    def ready(self) -> None:
        """See ``EventSink``."""

    def chunk(self, chunk: FrameChunk) -> None:
        """See ``EventSink``."""
        self.times["chunk"].append(time.perf_counter())

    @property
    def step(self) -> float:
        """The median of the seconds per denoise step."""
        return statistics.median(b - a for a, b in itertools.pairwise(self.steps[1:]))


class Encoding(Timer):
    """A sink that encodes the frames as MP4 in another thread."""

    def __init__(self) -> None:
        super().__init__()
        self._frames: queue.SimpleQueue[Frames | None] = queue.SimpleQueue()
        self._bytes = b""
        self._thread = threading.Thread(target=self._encode)
        self._thread.start()

    def chunk(self, chunk: FrameChunk) -> None:
        """See ``EventSink``."""
        super().chunk(chunk)
        self._frames.put(chunk.frames)

    def _encode(self) -> None:
        encoder, count, fps = Mp4Encoder(Fraction(16), "veryfast", 18), 0, Fraction(16)
        while (frames := self._frames.get()) is not None:
            encoder.add(frames, tuple((count + i) / fps for i in range(len(frames))))
            count += len(frames)
        self._bytes = encoder.close().read()

    def finish(self) -> bytes:
        """Return the MP4 once it is complete."""
        self._frames.put(None)
        self._thread.join()
        return self._bytes


class Cancelling(Timer):
    """A sink that cancels ``delay`` seconds after the first event of ``stage``."""

    def __init__(self, stage: str, delay: float) -> None:
        super().__init__()
        self._stage, self._delay, self.left = stage, delay, 0.0

    def progress(self, progress: Progress) -> None:
        """See ``EventSink``."""
        super().progress(progress)
        if progress.stage == self._stage and len(self.times[self._stage]) == 1:
            threading.Timer(self._delay, self._leave).start()
        if self.left:
            raise Cancelled("the benchmark cancels")

    def _leave(self) -> None:
        self.left = time.perf_counter()
