"""Who waits for a benchmark's videos: with a clock, with an encoder, or for a while only."""

import itertools
import queue
import statistics
import threading
import time
from fractions import Fraction

from deployments.errors import Cancelled
from deployments.wire import FrameChunk, Frames, Progress
from serve.media.encode import Mp4Encoder


class Timer:
    """A sink that notes when events come."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {"encode": [], "denoise": [], "decode": [], "chunk": []}
        self.steps: list[float] = []

    def progress(self, progress: Progress) -> None:
        """See Sink."""
        now = time.perf_counter()
        self.times[progress.stage].append(now)
        if progress.stage == "denoise" and progress.step == len(self.steps):  # a step may be told twice
            self.steps.append(now)

    def ready(self) -> None:
        """See Sink."""

    def chunk(self, chunk: FrameChunk) -> None:
        """See Sink."""
        self.times["chunk"].append(time.perf_counter())

    @property
    def step(self) -> float:
        """Median seconds of a denoise step."""
        return statistics.median(b - a for a, b in itertools.pairwise(self.steps[1:]))


class Encoding(Timer):
    """A sink that has an MP4 made of the frames in another thread."""

    def __init__(self) -> None:
        super().__init__()
        self._frames: queue.SimpleQueue[Frames | None] = queue.SimpleQueue()
        self._bytes = b""
        self._thread = threading.Thread(target=self._encode)
        self._thread.start()

    def chunk(self, chunk: FrameChunk) -> None:
        """See Sink."""
        super().chunk(chunk)
        self._frames.put(chunk.frames)

    def _encode(self) -> None:
        encoder, count, fps = Mp4Encoder(Fraction(16), "veryfast", 18), 0, Fraction(16)
        while (frames := self._frames.get()) is not None:
            encoder.add(frames, tuple((count + i) / fps for i in range(len(frames))))
            count += len(frames)
        self._bytes = encoder.close().read()

    def finish(self) -> bytes:
        """The MP4, when it is made."""
        self._frames.put(None)
        self._thread.join()
        return self._bytes


class Cancelling(Timer):
    """A sink whose consumer leaves ``delay`` seconds after the first event of ``stage``."""

    def __init__(self, stage: str, delay: float) -> None:
        super().__init__()
        self._stage, self._delay, self.left = stage, delay, 0.0

    def progress(self, progress: Progress) -> None:
        """See Sink."""
        super().progress(progress)
        if progress.stage == self._stage and len(self.times[self._stage]) == 1:
            threading.Timer(self._delay, self._leave).start()
        if self.left:
            raise Cancelled("gone")

    def _leave(self) -> None:
        self.left = time.perf_counter()
