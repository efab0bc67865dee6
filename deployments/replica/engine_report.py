"""What a video deployment reports on its engine's work: metrics, and a span for each stage."""

import time
from collections.abc import Callable

from deployments.engine import Usage
from deployments.telemetry import metrics
from deployments.telemetry.tracing import NO_SPAN, begin
from deployments.wire import Progress


class EngineReport:
    """Reports on the engine of one replica, whose model has the API name ``model``.

    ``usage`` is what the engine has used before its first request.
    """

    def __init__(self, model: str, usage: Usage) -> None:
        self._model = model
        self._last = usage

    def begin(self) -> "VideoReport":
        """Return the report on one video."""
        return VideoReport(self._model)

    def used(self, usage: Usage) -> None:
        """Report what the engine has used since the last call."""
        model, last = self._model, self._last
        self._last = usage
        metrics.PROMPT_CACHE.add(usage.prompt_hits - last.prompt_hits, model=model, result="hit")
        metrics.PROMPT_CACHE.add(usage.prompt_misses - last.prompt_misses, model=model, result="miss")
        metrics.LORA_CACHE.add(usage.lora_hits - last.lora_hits, model=model, result="hit")
        metrics.LORA_CACHE.add(usage.lora_loads - last.lora_loads, model=model, result="miss")
        for gpu, reserved in enumerate(usage.gpu_bytes):
            metrics.GPU_MEMORY_BYTES.set(reserved, model=model, gpu=str(gpu))


class VideoReport:
    """Follows the progress of one video in the engine's thread."""

    def __init__(self, model: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._model = model
        self._clock = clock
        self._step_began: float | None = None
        self._stage = ""
        self._span = NO_SPAN

    def observe(self, progress: Progress) -> None:
        """Take the progress of a stage."""
        if progress.stage != self._stage:
            self._span.end()
            self._stage, self._span = progress.stage, begin(progress.stage, {"ryla.model": self._model})
        if progress.stage == "denoise":
            now = self._clock()
            if progress.step > 0:
                metrics.DENOISE_STEPS.add(model=self._model)
            if progress.step > 0 and self._step_began is not None:
                metrics.DENOISE_STEP_SECONDS.observe(now - self._step_began, model=self._model)
            self._step_began = now
            self._span.set({"ryla.steps": progress.steps})

    def fail(self, reason: str) -> None:
        """Mark the span of the stage in which the video failed; see ``Span.fail``."""
        self._span.fail(reason)

    def end(self) -> None:
        """End the span of the last stage, whether the video was finished or not."""
        self._span.end()
