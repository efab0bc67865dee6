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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from skimage.metrics import structural_similarity

from benchmarks.judge import Frames
from benchmarks.questions import CFG, FRAMES, SIDE, STEPS, Collected, ask, image_scenes, load, picture_of, psnr, shape_scenes
from demo.checkpoints import demo_checkpoints
from deployments.settings import Wan22Settings, Wan26Settings
from deployments.video.acceleration.choice import AccelerationOptions
from deployments.video.build import build_wan22, build_wan26
from deployments.video.engine import WanEngine
from deployments.video.kernels.install import pick_operations
from deployments.wire import Acceleration, Image, VideoRequest
from training.scenes import caption

THRESHOLDS = (0.02, 0.05, 0.08, 0.12, 0.2, 0.3)
Row = tuple[str, str, str, str, str, str]


@dataclass(frozen=True)
class Variant:
    """One acceleration, and how the engine is set up for it."""

    name: str
    acceleration: Acceleration
    options: AccelerationOptions


EXACT = Variant("exact", "none", AccelerationOptions())
DISTILLED = Variant("distilled", "distilled", AccelerationOptions())


def cache(name: str, threshold: float) -> Variant:
    """Return the first-block cache with this threshold."""
    return Variant(name, "cache", AccelerationOptions(cache_threshold=threshold))


def fp8() -> Variant:
    """Return fp8."""
    return Variant("fp8", "fp8", AccelerationOptions(fp8_operations=pick_operations(Wan26Settings())))


def variants(device: Literal["cpu", "cuda"]) -> Iterator[Variant]:
    """Yield all variants that are compared with exact videos."""
    for threshold in THRESHOLDS:
        yield cache(f"cache, {threshold:g}", threshold)
    yield DISTILLED
    if device == "cuda":
        yield fp8()


def compare(
    name: str, engine: WanEngine, *, questions: list[tuple[str, Image | None]], device: Literal["cpu", "cuda"]
) -> Iterator[Row]:
    """Yield a row for each variant.

    It has the share of reused passes, how many times as fast denoising is, and PSNR and SSIM to the
    exact videos, mean and worst.
    """
    exact = [_generate(engine, prompt, image=image, variant=EXACT) for prompt, image in questions]
    for variant in variants(device):
        videos = [_generate(engine, prompt, image=image, variant=variant) for prompt, image in questions]
        pairs = list(zip(videos, exact, strict=True))
        noise = [psnr(video.frames, other.frames) for video, other in pairs]
        similarity = [_ssim(video.frames, other.frames) for video, other in pairs]
        speed_up = sum(video.seconds for video in exact) / sum(video.seconds for video in videos)
        yield (
            name,
            variant.name,
            f"{statistics.mean(video.reused for video in videos):.0%}",
            f"{speed_up:.2f}",
            f"{statistics.mean(noise):.1f} ({min(noise):.1f}) dB",
            f"{statistics.mean(similarity):.3f} ({min(similarity):.3f})",
        )


@dataclass(frozen=True)
class Video:
    """A generated video."""

    frames: Frames
    seconds: float
    """Seconds of denoising."""
    reused: float
    """Share of the forward passes that reused blocks."""


def _generate(engine: WanEngine, prompt: str, *, image: Image | None, variant: Variant) -> Video:
    sink = Collected()
    steps, cfg = (4, 1.0) if variant is DISTILLED else (STEPS, CFG)
    request = VideoRequest(
        prompt=prompt,
        negative_prompt="",
        width=SIDE,
        height=SIDE,
        num_frames=FRAMES,
        steps=steps,
        cfg=cfg,
        seed=1,
        image=image,
        acceleration=variant.acceleration,
    )
    finished = replace(engine, accelerations=variant.options).generate(request, sink)
    reused, _, passes = finished.acceleration.rpartition("=")[2].partition("/")
    share = int(reused) / int(passes) if passes else 0.0
    return Video(np.concatenate(sink.chunks), finished.seconds["denoise"], share)


def _ssim(one: Frames, other: Frames) -> float:
    return statistics.mean(float(structural_similarity(a, b, channel_axis=2)) for a, b in zip(one, other, strict=True))


def run_demo(device: Literal["cpu", "cuda"]) -> Iterator[Row]:
    """Compare all variants on the demo's two models."""
    demo = load(demo_checkpoints(), device)
    texts = [(ask(scene), None) for scene in shape_scenes(12)]
    yield from compare("Wan26, 12 prompts", demo.wan26, questions=[*texts], device=device)
    lot = random.Random(4)
    images = [(caption(scene, lot), picture_of(scene)[0]) for scene in image_scenes(12)]
    yield from compare("Wan26, 12 images", demo.wan26, questions=[*images], device=device)
    yield from compare("Wan22GGUF, 12 images", demo.wan22, questions=[*images], device=device)


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
    caches = [cache("cache", threshold) for threshold in (1e-9, 0.999)]
    for name, build, image in engines:
        engine, exact = build(), 0.0
        engine.warm_up(832, 480, 33)
        # The first two compile kernels and choose matrix products, so they are measured again.
        for variant in (fp8(), DISTILLED, EXACT, *caches, fp8(), DISTILLED):
            steps, cfg = (4, 1.0) if variant is DISTILLED else (30, 6.0)
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
    table = Table("model", "acceleration", "reused", "denoising, times as fast", "PSNR to exact (worst)", "SSIM (worst)")
    for row in run_demo(arguments.device) if arguments.full is None else run_full(arguments.full):
        table.add_row(*row)
        print(*row, sep=" | ", flush=True)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
