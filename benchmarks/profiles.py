"""`python -m benchmarks.profiles SEEDS`: what the profiles of `acceleration` do to what is shown.

The demo's Wan26 answers 24 held-out prompts with so many seeds each in every way, and the judge
says of each video whether colour, shape and motion are as asked. A few points of some fifty videos
are chance, so this runs hundreds, in several processes, which share a GPU if there is one. All is
computed in float32, as on a CPU. Behind each share is how often chance alone would make the videos
that only one of both ways got right so unequal (McNemar's exact test).

One way is measured that the service does not offer, progressive resolution: the first steps run at
half the width and height, and their estimate of the video, enlarged and with the noise of the next
step, goes on at full size (arXiv 2605.18736). Its forward passes are counted as if they were full.

`--sheet FILE` writes a picture with the first and the last frame of some videos.
"""

import argparse
import functools
import itertools
import math
import multiprocessing
import statistics
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch
from PIL import Image as Picture
from rich.console import Console
from rich.table import Table

from benchmarks.acceleration import (
    DISTILLED,
    EXACT,
    QUESTIONS,
    Question,
    Variant,
    Video,
    cache,
    every,
    gated,
    generate,
    similarity,
)
from benchmarks.judge import Frames, judge
from benchmarks.questions import ask, psnr, shape_scenes
from demo.checkpoints import wan26_models
from deployments.settings import Wan26Settings
from deployments.video.build import build_wan26
from deployments.video.engine import Run, WanEngine
from deployments.video.run_transformers import RunTransformers
from deployments.video.sampling.conditions import prepare_conditions
from deployments.video.sampling.denoise import denoise
from deployments.video.sampling.solver import Solver

HALF_SIZE_STEPS = (2, 4, 7)
"""How many of 12 steps run at half the size. With seven, denoising 81 frames of 832x480 with Wan
1.3B is twice as fast by the number of operations: such a pass takes 0.12 of a full one's."""
ROWS = 6
"""Rows of the picture."""


@dataclass(frozen=True)
class Outcome:
    """What became of one question in one way."""

    right: tuple[bool, bool, bool]
    """Whether colour, shape and motion are as asked."""
    noise: float
    """PSNR to the exact video in dB."""
    alike: float
    """SSIM to the exact video."""
    passes: int
    """Forward passes."""
    ends: Frames
    """The first and the last frame, side by side."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ProgressiveEngine(WanEngine):
    """An engine whose first steps run at half the width and height."""

    half_size_steps: int

    def sample(self, run: Run) -> torch.Tensor:
        """Return the latents, the first steps of which ran at half the size."""
        request, scheduler = run.request, run.mode.scheduler
        device = self.prompts.encoder.device
        half = replace(request, width=request.width // 2, height=request.height // 2)
        guidance = self._encode_prompts(run)
        whole, small = (prepare_conditions(self._pipeline_of(run), size, device) for size in (request, half))
        # The noise of the small video is that of the large one, so that both show the same.
        small = replace(small, noise=2 * torch.nn.functional.avg_pool3d(whole.noise, (1, 2, 2)))
        solver = Solver(scheduler, request.steps)
        first = FirstSteps(self.half_size_steps, solver)
        transformers = RunTransformers(run.mode, None, self.offloader, most=1, loras=None)
        with run.clock.measure("denoise"):
            try:
                denoise(
                    transformers=transformers,
                    solver=solver,
                    conditions=small,
                    guidance=guidance,
                    report=run.report_step,
                    velocity=first.velocity,
                )
            except EnoughSteps:
                estimate = first.estimate
            enlarged = torch.nn.functional.interpolate(estimate, scale_factor=(1, 2, 2), mode="trilinear")
            return denoise(
                transformers=transformers,
                solver=Solver(scheduler, request.steps, request.steps - self.half_size_steps),
                conditions=replace(whole, source=enlarged),
                guidance=guidance,
                report=run.report_step,
            )


class EnoughSteps(Exception):
    """The steps at half the size are done."""


class FirstSteps:
    """Ends denoising after ``count`` steps, with an estimate of the denoised latents."""

    def __init__(self, count: int, solver: Solver) -> None:
        self._count, self._timesteps = count, solver.timesteps
        self._done = 0
        self.estimate: torch.Tensor

    def velocity(self, latents: torch.Tensor, phase: Hashable, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what ``compute`` returns; raises ``EnoughSteps`` after the last one."""
        velocity = compute()
        self._done += 1
        if self._done == self._count:
            self._end(latents, velocity)
        return velocity

    def _end(self, latents: torch.Tensor, velocity: torch.Tensor) -> NoReturn:
        self.estimate = latents - self._timesteps[self._done - 1] / 1000 * velocity
        raise EnoughSteps


@dataclass(frozen=True)
class Way:
    """A way to make videos: an acceleration, or a number of steps at half the size."""

    name: str
    variant: Variant = EXACT
    half_size_steps: int = 0

    def make(self, engine: WanEngine, question: Question) -> Video:
        """Return the video that answers ``question``."""
        if self.half_size_steps:
            parts = {field.name: getattr(engine, field.name) for field in fields(WanEngine)}
            engine = ProgressiveEngine(**parts, half_size_steps=self.half_size_steps)
        return generate(engine, question, self.variant)


WAYS = (
    Way("exact"),
    Way("`balanced`: cache, threshold 0.32", cache(0.32)),
    Way("`fast`: cache, every third step", every(3)),
    Way("cache, threshold 0.7", cache(0.7)),
    Way("guidance until 0.5", gated(0.5)),
    Way("`fastest`: distilled", DISTILLED),
    *(Way(f"{count} of 12 steps at half the size", half_size_steps=count) for count in HALF_SIZE_STEPS),
)


@functools.cache
def engine() -> WanEngine:
    """Return this process's engine."""
    torch.set_num_threads(1)
    cuda = torch.cuda.is_available()
    settings = Wan26Settings(device="cuda" if cuda else "cpu", dtype="float32" if cuda else "auto")
    return build_wan26(settings, wan26_models())


def answer(way: Way, question: Question, exact: Video | None) -> tuple[Outcome, Video]:
    """Answer ``question``, and compare the video with the exact one, which is None for itself."""
    video = way.make(engine(), question)
    return assess(video, exact or video, question), video


def assess(video: Video, exact: Video, question: Question) -> Outcome:
    """Compare a video with the exact one and with what was asked."""
    return Outcome(
        right=judge(video.frames).right(question.scene),
        noise=psnr(video.frames, exact.frames),
        alike=similarity(video.frames, exact.frames),
        passes=video.passes,
        ends=np.concatenate([video.frames[0], video.frames[-1]], axis=1),
    )


def describe(way: Way, outcomes: Sequence[Outcome], exact: Sequence[Outcome]) -> tuple[str, ...]:
    """Return the row of a way."""
    shares = []
    for index in range(3):
        pairs = [(one.right[index], other.right[index]) for one, other in zip(outcomes, exact, strict=True)]
        gained, lost = pairs.count((True, False)), pairs.count((False, True))
        shares.append(f"{statistics.mean(one for one, _ in pairs):.1%} (p {chance(gained, lost):.2g})")
    noise, alike = [one.noise for one in outcomes], [one.alike for one in outcomes]
    return (
        way.name,
        f"{sum(one.passes for one in exact) / sum(one.passes for one in outcomes):.2f}",
        f"{statistics.mean(noise):.1f} ({min(noise):.1f}) dB",
        f"{statistics.mean(alike):.3f} ({min(alike):.3f})",
        *shares,
    )


def chance(gained: int, lost: int) -> float:
    """Return the two-sided p-value of McNemar's exact test."""
    count = gained + lost
    ways = sum(math.comb(count, fewer) for fewer in range(min(gained, lost) + 1))
    return min(1.0, float(2 * ways / 2**count))


def draw_sheet(rows: Sequence[Sequence[Outcome]], path: Path) -> None:
    """Write a picture with a column for each way and a row for each of the first questions."""
    columns = [np.concatenate([one.ends for one in outcomes[:ROWS]]) for outcomes in rows]
    Picture.fromarray(np.concatenate(columns, axis=1)).save(path)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, help="number of seeds for each prompt")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="write a picture of some videos")
    arguments = parser.parse_args()
    scenes = shape_scenes(QUESTIONS)
    questions = [Question(ask(scene), None, scene, 1 + seed) for seed in range(arguments.seeds) for scene in scenes]
    columns = (
        "way",
        "fewer passes, times",
        "PSNR to exact (worst)",
        "SSIM (worst)",
        "colour right",
        "shape right",
        "motion right",
    )
    table = Table(*columns, title=f"{len(questions)} videos of each way")
    rows: list[list[Outcome]] = []
    exact: Sequence[Video | None] = [None] * len(questions)
    with ProcessPoolExecutor(arguments.processes, multiprocessing.get_context("spawn")) as pool:
        for way in WAYS:
            outcomes, videos = zip(*pool.map(answer, itertools.repeat(way), questions, exact), strict=True)
            rows.append(list(outcomes))
            exact = videos if len(rows) == 1 else exact
            row = describe(way, outcomes, rows[0])
            table.add_row(*row)
            print(*row, sep=" | ", flush=True)
            if arguments.sheet is not None:
                draw_sheet(rows, arguments.sheet)
    Console(width=170).print(table)


if __name__ == "__main__":
    main()
