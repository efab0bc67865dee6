"""Turns the steps of a pipeline into the progress of a job: stage, percent and time left."""

import time
from collections.abc import Callable
from dataclasses import replace

from deployments.wire import Image
from deployments.wire import Progress as ModelProgress
from serve.jobs.forecasts.estimate import Estimate
from serve.jobs.forecasts.pace import Pace, Work
from serve.jobs.store.record import Progress, Stage
from serve.media.decode.source import CHUNK
from serve.pipelines.context import ChunkStep, FrameCount, Step
from serve.pipelines.requests import GenerateVideo, PipelineRequest

_CHUNK_STAGES: dict[str, Stage] = {"decoded": "decoding", "encoded": "swapping"}
"""The stage that a chunk has passed with each of its steps, where the job has that stage."""
_MODEL_STAGES: dict[str, Stage] = {"start": "starting", "encode": "encoding", "denoise": "denoising", "decode": "decoding"}


class Tracker:
    """Follows one attempt of a job. ``progress`` is what is known now.

    ``changed`` is called with each new progress, and ``on_frame`` with the latest decoded frame.
    From each job that ends, ``pace`` learns.
    """

    def __init__(
        self,
        request: PipelineRequest,
        model: str,
        pace: Pace,
        *,
        changed: Callable[[Progress], None],
        on_frame: Callable[[Image], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._request = request
        self._model = model
        self._pace = pace
        self._changed = changed
        self._on_frame = on_frame
        self._clock = clock
        self._generated = isinstance(request, GenerateVideo)
        self._set_work(request.frames if isinstance(request, GenerateVideo) else 1)
        self.progress = Progress(stage="starting")

    def observe(self, step: Step) -> None:
        """Take a step of the pipeline."""
        if isinstance(step, FrameCount):
            self._set_work(max(1, step.frames))
        elif isinstance(step, ModelProgress):
            self._observe_model(step)
        elif isinstance(step, ChunkStep):
            self._observe_chunk(step)

    def starting(self, detail: str) -> None:
        """Say what a model that is starting does."""
        if self.progress.stage == "starting" and detail != self.progress.detail:
            self._set(replace(self.progress, detail=detail))

    def preview_ready(self, marks: str) -> None:
        """Say that a preview can be fetched, and what `X-Provenance` says about it."""
        if not self.progress.preview or marks != self.progress.preview_marks:
            self._set(replace(self.progress, preview=True, preview_marks=marks))

    def writing(self) -> None:
        """Say that the result is being stored."""
        self._set_progress("writing", 0, 0, percent=99.0, eta_s=0.0)

    def _observe_model(self, step: ModelProgress) -> None:
        stage = _MODEL_STAGES[step.stage]
        if stage in ("starting", "encoding"):
            self._estimate.begin(self._clock())  # denoising begins when the last of these has come
        if stage == "starting":
            return
        if stage == "denoising":
            self._reach("denoising", step.step / max(1, step.steps))
        if stage == "decoding" and self.progress.stage in ("decoding", "swapping"):
            return  # the chunks tell how far it is
        self._advance(stage, step.step, step.steps)

    def _observe_chunk(self, step: ChunkStep) -> None:
        if step.frame is not None:
            self._on_frame(step.frame)
        stage = _CHUNK_STAGES.get(step.kind)
        if stage is not None and stage in self._work.units:
            frames = min(self._frames, step.index + (1 if self._generated and step.index == 0 else CHUNK))
            # A first chunk of one frame takes nearly as long as others.
            self._reach(stage, self._chunks(frames) / self._chunks(self._frames))
            self._advance(stage, frames, self._frames)

    def _chunks(self, frames: int) -> float:
        return 1 + (frames - 1) / CHUNK if self._generated else float(frames)

    def finished(self) -> None:
        """Learn how long the stages took."""
        now = self._clock()
        for stage, units in self._work.units.items():
            self._pace.learn(self._model, stage, seconds=self._estimate.measured_s(stage, now), units=units)

    def _set_work(self, frames: int) -> None:
        self._frames = frames
        self._work = Work.of(self._request, frames)
        known = {stage: self._pace.of(self._model, stage) for stage in self._work.units}
        self._estimate = Estimate(self._work, known, self._clock())

    def _reach(self, stage: Stage, share: float) -> None:
        self._estimate.reach(stage, share, self._clock())

    def _advance(self, stage: Stage, step: int, steps: int) -> None:
        percent = max(self.progress.percent, round(min(99.0, 100 * self._estimate.done()), 1))
        left_s = self._estimate.left_s()
        self._set_progress(stage, step, steps, percent=percent, eta_s=None if left_s is None else round(left_s, 1))

    def _set_progress(self, stage: Stage, step: int, steps: int, *, percent: float, eta_s: float | None) -> None:
        self._set(replace(self.progress, stage=stage, step=step, steps=steps, percent=percent, eta_s=eta_s, detail=""))

    def _set(self, progress: Progress) -> None:
        self.progress = progress
        self._changed(progress)
