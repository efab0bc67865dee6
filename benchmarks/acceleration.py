"""`python -m benchmarks.acceleration`: what the request field `acceleration` costs and saves.

The demo's models answer held-out prompts and images, and each video is compared with the exact one
of the same seed. fp8 is included where the GPU has it.

`--full FOLDER` measures models of full size on a GPU: a pass that reuses blocks, the decision where
none is reused, fp8, and 4 steps with a LoRA. Their weights are random and written to FOLDER, so
they do not show how often a trained model reuses blocks.
"""

import argparse
import gc
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from skimage.metrics import structural_similarity

from benchmarks.judge import Frames, judge
from benchmarks.questions import (
    CFG,
    FRAMES,
    SIDE,
    STEPS,
    Collected,
    Demo,
    ask,
    image_scenes,
    load,
    picture_of,
    psnr,
    shape_scenes,
)
from demo.checkpoints import demo_checkpoints
from deployments.settings import Wan22Settings, Wan26Settings
from deployments.video.acceleration.choice import AccelerationOptions
from deployments.video.build import build_wan22, build_wan26
from deployments.video.engine import WanEngine
from deployments.video.kernels.install import pick_operations
from deployments.wire import Acceleration, Image, VideoRequest
from training.scenes import Scene, caption

THRESHOLDS = (0.24, 0.32, 0.5, 0.7, 1.0)
SHARES = (0.75, 0.5, 0.34)
QUESTIONS = 24
Row = tuple[str, str, str, str, str, str, str]


@dataclass(frozen=True)
class Variant:
    """One acceleration, and how the engine is set up for it."""

    name: str
    acceleration: Acceleration
    options: AccelerationOptions
    guidance_until: float = 1.0
    cache_every: int = 0


@dataclass(frozen=True)
class Question:
    """A prompt or an image that the model is asked for, and the scene that it should show."""

    prompt: str
    image: Image | None
    scene: Scene
    seed: int = 1


EXACT = Variant("exact", "none", AccelerationOptions())
DISTILLED = Variant("distilled", "distilled", AccelerationOptions())


def cache(threshold: float, guidance_until: float = 1.0) -> Variant:
    """Return the step cache with this threshold."""
    name = f"cache, {threshold:g}" + (f", guidance until {guidance_until:g}" if guidance_until < 1 else "")
    return Variant(name, "cache", AccelerationOptions(cache_threshold=threshold), guidance_until)


def every(interval: int) -> Variant:
    """Return the step cache that computes every n-th step."""
    options = AccelerationOptions(cache_threshold=1.0)
    return Variant(f"cache, every {interval}", "cache", options, cache_every=interval)


def gated(share: float) -> Variant:
    """Return guidance for this share of the steps."""
    return Variant(f"guidance until {share:g}", "none", AccelerationOptions(), share)


def fp8() -> Variant:
    """Return fp8."""
    return Variant("fp8", "fp8", AccelerationOptions(fp8_operations=pick_operations(Wan26Settings())))


def variants(device: Literal["cpu", "cuda"]) -> Iterator[Variant]:
    """Yield all variants that are compared with exact videos."""
    yield from (gated(share) for share in SHARES)
    yield from (cache(threshold) for threshold in THRESHOLDS)
    yield from (every(interval) for interval in (2, 3, 4))
    yield from (cache(threshold, 0.5) for threshold in THRESHOLDS)
    yield DISTILLED
    if device == "cuda":
        yield fp8()


def compare(
    name: str,
    engine: WanEngine,
    *,
    questions: Sequence[Question],
    variants: Sequence[Variant],
) -> Iterator[Row]:
    """Yield a row for each variant.

    It has the reduction of forward passes, how many times as fast denoising is, PSNR and SSIM to
    the exact videos, mean and worst, and the answers that the judge calls right. The first row has
    those of the exact videos.
    """
    exact = [generate(engine, question, EXACT) for question in questions]
    yield name, "exact", "1.00", "1.00", "", "", right(questions, exact)
    for variant in variants:
        videos = [generate(engine, question, variant) for question in questions]
        pairs = list(zip(videos, exact, strict=True))
        noise = [psnr(video.frames, other.frames) for video, other in pairs]
        alike = [similarity(video.frames, other.frames) for video, other in pairs]
        seconds, passes = (
            sum(getattr(video, field) for video in exact) / sum(getattr(video, field) for video in videos)
            for field in ("seconds", "passes")
        )
        yield (
            name,
            variant.name,
            f"{passes:.2f}",
            f"{seconds:.2f}",
            f"{statistics.mean(noise):.1f} ({min(noise):.1f}) dB",
            f"{statistics.mean(alike):.3f} ({min(alike):.3f})",
            right(questions, videos),
        )


def right(questions: Sequence[Question], videos: Sequence["Video"]) -> str:
    """Return the share of videos whose colour, shape and motion the judge calls right."""
    if any(question.image is not None for question in questions):
        return ""  # the judge knows plain shapes only
    answers = [judge(video.frames).right(question.scene) for question, video in zip(questions, videos, strict=True)]
    return " / ".join(f"{statistics.mean(right):.0%}" for right in zip(*answers, strict=True))


@dataclass(frozen=True)
class Video:
    """A generated video."""

    frames: Frames
    seconds: float
    """Seconds of denoising."""
    passes: int
    """Forward passes."""


def generate(engine: WanEngine, question: Question, variant: Variant) -> Video:
    """Return the video that answers ``question`` in this way."""
    sink, passes = Collected(), Passes(engine)
    steps, cfg = (4, 1.0) if variant.acceleration == "distilled" else (STEPS, CFG)
    request = VideoRequest(
        prompt=question.prompt,
        negative_prompt="",
        width=SIDE,
        height=SIDE,
        num_frames=FRAMES,
        steps=steps,
        cfg=cfg,
        seed=question.seed,
        image=question.image,
        acceleration=variant.acceleration,
        guidance_until=variant.guidance_until,
        cache_every=variant.cache_every,
    )
    with passes:
        finished = replace(engine, accelerations=variant.options).generate(request, sink)
    return Video(np.concatenate(sink.chunks), finished.seconds["denoise"], passes.count)


class Passes:
    """Counts the forward passes of an engine's transformers while it is entered."""

    def __init__(self, engine: WanEngine) -> None:
        modes = [mode for mode in (engine.text_mode, engine.image_mode) if mode is not None]
        versions = [version for mode in modes for version in (mode, mode.distilled) if version is not None]
        self._models = {id(model): model for version in versions for model in version.transformers.values()}
        self._hooks: list[Any] = []
        self.count = 0

    def __enter__(self) -> None:
        def count(*_: object) -> None:
            self.count += 1

        self._hooks = [model.register_forward_pre_hook(count) for model in self._models.values()]

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def similarity(one: Frames, other: Frames) -> float:
    """Return the mean SSIM of two videos' frames."""
    return statistics.mean(float(structural_similarity(a, b, channel_axis=2)) for a, b in zip(one, other, strict=True))


def run_demo(device: Literal["cpu", "cuda"]) -> Iterator[Row]:
    """Compare all variants on the demo's two models."""
    demo = load(demo_checkpoints(), device)
    for name, engine, questions in ask_demo(demo):
        yield from compare(name, engine, questions=questions, variants=[*variants(device)])


def ask_demo(demo: Demo) -> Iterator[tuple[str, WanEngine, list[Question]]]:
    """Yield a name, an engine and its questions for each set of questions."""
    texts = [Question(ask(scene), None, scene) for scene in shape_scenes(QUESTIONS)]
    lot = random.Random(4)
    images = [Question(caption(scene, lot), picture_of(scene)[0], scene) for scene in image_scenes(QUESTIONS)]
    yield "Wan26, prompts", demo.wan26, texts
    yield "Wan26, images", demo.wan26, images
    yield "Wan22GGUF, images", demo.wan22, images


def run_full(folder: Path) -> Iterator[Row]:
    """Measure 30 steps at 832x480, 33 frames, with models of full size.

    The variants are exact, a cache that never reuses, one that always does, fp8 and distilled.
    """
    from benchmarks.wan_checkpoints import Checkpoints, write_lora
    from benchmarks.wan_measurement import IMAGE, full_request
    from deployments.video.kernels import fused, reference

    rows = torch.randn(1000, 13824, device="cuda", dtype=torch.bfloat16)
    (ours, scales), (expected, expected_scales) = fused.quantise_rows(rows), reference.quantise_rows(rows)
    equal = (ours.view(torch.uint8) == expected.view(torch.uint8)).float().mean()
    yield (
        "quantised rows",
        f"share equal to PyTorch's: {equal:.5f}",
        "",
        f"scales {float((scales / expected_scales - 1).abs().max()):.1e} apart",
        "",
        "",
        "",
    )
    checkpoints = Checkpoints(folder)
    small, large = checkpoints.wan26, checkpoints.wan22
    files = {name: folder / f"lora-{name}.safetensors" for name in ("1.3B", "HighNoise", "LowNoise")}
    for name, file in files.items():
        write_lora(file, Path(small.text if name == "1.3B" else large.folder) / "transformer", 64)
    small = small.model_copy(update={"text_distilled": files["1.3B"]})
    large = large.model_copy(update={"high_noise_distilled": files["HighNoise"], "low_noise_distilled": files["LowNoise"]})
    engines: tuple[tuple[str, Callable[[], WanEngine], Image | None], ...] = (
        ("1.3B", lambda: build_wan26(Wan26Settings(device="cuda"), small), None),
        ("A14B, Q5_K", lambda: build_wan22(Wan22Settings(device="cuda"), large), IMAGE),
    )
    caches = [cache(threshold) for threshold in (1e-9, 2.0)]
    for name, build, image in engines:
        engine, exact = build(), 0.0
        engine.warm_up(832, 480, 33)
        # The first two compile kernels and choose matrix products, so they are measured again.
        for variant in (fp8(), DISTILLED, EXACT, *caches, fp8(), DISTILLED):
            steps, cfg = (4, 1.0) if variant.acceleration == "distilled" else (30, 6.0)
            request = replace(full_request(steps=steps, cfg=cfg, image=image), acceleration=variant.acceleration)
            finished = replace(engine, accelerations=variant.options).generate(request, Collected())
            seconds = finished.seconds["denoise"]
            exact = seconds if variant is EXACT else exact
            yield (
                f"{name}, random weights",
                finished.acceleration or "exact",
                "",
                f"{exact / seconds:.2f}",
                f"{seconds:.2f} s of {sum(finished.seconds.values()):.2f} s",
                "",
                "",
            )
        del engine
        gc.collect()
        torch.cuda.empty_cache()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="measure models of full size on a GPU")
    arguments = parser.parse_args()
    table = Table(
        "model",
        "acceleration",
        "fewer passes, times",
        "denoising, times as fast",
        "PSNR to exact (worst)",
        "SSIM (worst)",
        "colour / shape / motion right",
    )
    rows = run_demo(arguments.device) if arguments.full is None else run_full(arguments.full)
    for row in rows:
        table.add_row(*row)
        print(*row, sep=" | ", flush=True)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
