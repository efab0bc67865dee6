"""Runs an engine call under torch's profiler."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from deployments.engine import VideoEngine
from deployments.engine_threads import CancelFlag
from deployments.wire import FrameChunk, Progress, VideoRequest


class Unconsumed:
    """A sink for a video that nobody sees: it takes every chunk at once and drops it."""

    def __init__(self, cancel: CancelFlag) -> None:
        self._cancel = cancel

    def progress(self, progress: Progress) -> None:
        """Take note of nothing, and end the work if it is not needed any more."""
        self._cancel.check()

    def ready(self) -> None:
        """Have room for another chunk."""
        self._cancel.check()

    def chunk(self, chunk: FrameChunk) -> None:
        """Drop a chunk."""
        self._cancel.check()


def trace(work: Callable[[], object]) -> bytes:
    """Run ``work`` and return what it did as a gzipped trace in Chrome's format.

    The trace has the operators of this thread with the shapes of their inputs, and on a GPU the
    kernels of the process. Raises whatever ``work`` raises; there is no trace then.
    """
    # The import is here because the process that builds the graph has no torch.
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json.gz"
        profiler.export_chrome_trace(str(path))
        return path.read_bytes()


def trace_video(engine: VideoEngine, request: VideoRequest, cancel: CancelFlag) -> bytes:
    """Return the trace of one video, from its prompt to its last frame; see ``trace``."""
    return trace(lambda: engine.generate(request, Unconsumed(cancel)))
