"""Turns the steps of a pipeline into the progress of a job: stage, percent and time left."""

import time
from collections.abc import Callable
from dataclasses import replace

from deployments.wire import Image
from deployments.wire import Progress as ModelProgress
from serve.jobs.pace import Pace, Work
from serve.jobs.record import Progress, Stage
from serve.media.source import CHUNK
from serve.pipelines.context import ChunkStep, FrameCount, Step
from serve.pipelines.requests import GenerateVideo, PipelineRequest

_MODEL_STAGES: dict[str, Stage] = {"start": "starting", "encode": "encoding", "denoise": "denoising", "decode": "decoding"}


class Tracker:
    """Follows one attempt of a job. ``progress`` is what is known now.

    ``changed`` is called with each new progress, and ``on_frame`` with the latest decoded frame.
    Percent and time left come from the units of work that are done and left, at the pace of earlier
    jobs, corrected by what this job has taken so far.
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
        self._work = Work.of(request)
        self._done: dict[str, float] = dict.fromkeys(self._work.units, 0.0)
        self._generated = isinstance(request, GenerateVideo)
        self._frames = request.frames if isinstance(request, GenerateVideo) else 1
        self._began = clock()
        self._stage_began = self._began
        self.progress = Progress(stage="starting")

    def observe(self, step: Step) -> None:
        """Take a step of the pipeline."""
        if isinstance(step, FrameCount):
            self._frames = max(1, step.frames)
            self._work = Work.of(self._request, step.frames)
        elif isinstance(step, ModelProgress):
            self._observe_model(step)
        elif isinstance(step, ChunkStep):
            self._observe_chunk(step)

    def starting(self, detail: str) -> None:
        """Say what a model that is starting does."""
        if self.progress.stage == "starting" and detail != self.progress.detail:
            self._set(replace(self.progress, detail=detail))

    def preview_ready(self) -> None:
        """Say that a preview can be fetched."""
        if not self.progress.preview:
            self._set(replace(self.progress, preview=True))

    def writing(self) -> None:
        """Say that the result is being stored."""
        self._done.update(self._work.units)
        self._advance("writing", 0, 0)

    def _observe_model(self, step: ModelProgress) -> None:
        stage = _MODEL_STAGES[step.stage]
        if stage == "starting":
            self._began = self._stage_began = self._clock()  # the time in the queue is not work
            return
        if stage == "encoding":
            self._stage_began = self._clock()  # denoising begins when the last of these has come
        if stage == "denoising":
            self._done["denoising"] = self._work.units["denoising"] * step.step / max(1, step.steps)
            if step.step == step.steps:
                self._end_stage("denoising")
        if stage == "decoding" and self.progress.stage in ("decoding", "swapping"):
            return  # the chunks tell how far it is
        self._advance(stage, step.step, step.steps)

    def _observe_chunk(self, step: ChunkStep) -> None:
        frames = min(self._frames, step.index + (1 if self._generated and step.index == 0 else CHUNK))
        if step.frame is not None:
            self._on_frame(step.frame)
        if step.kind == "decoded" and "decoding" in self._done:
            self._done["decoding"] = self._work.units["decoding"] * frames / self._frames
            if frames == self._frames:
                self._end_stage("decoding")
            if "swapping" not in self._done:
                self._advance("decoding", frames, self._frames)
        elif step.kind == "encoded" and "swapping" in self._done:
            self._done["swapping"] = frames
            self._advance("swapping", frames, self._frames)

    def _end_stage(self, stage: str) -> None:
        now = self._clock()
        self._pace.learn(self._model, stage, seconds=now - self._stage_began, units=self._work.units[stage])
        self._stage_began = now

    def finished(self) -> None:
        """Learn the pace of the last stage."""
        if "swapping" in self._done and len(self._done) == 1:
            self._end_stage("swapping")

    def _advance(self, stage: Stage, step: int, steps: int) -> None:
        total = sum(self._pace.guess(self._model, name) * units for name, units in self._work.units.items())
        done = sum(self._pace.guess(self._model, name) * units for name, units in self._done.items())
        share = min(1.0, done / total) if total else 0.0
        percent = max(self.progress.percent, round(min(99.0, 100 * share), 1))
        eta_s = None
        if share > 0:
            spent = self._clock() - self._began
            # The pace of this very job counts for more, the more of it is done.
            own = spent / share * (1 - share)
            known = all(self._pace.of(self._model, name) is not None for name in self._work.units)
            eta_s = round(own * share + (total - done) * (1 - share) if known else own, 1)
        self._set(replace(self.progress, stage=stage, step=step, steps=steps, percent=percent, eta_s=eta_s, detail=""))

    def _set(self, progress: Progress) -> None:
        self.progress = progress
        self._changed(progress)
