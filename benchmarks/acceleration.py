"""What `acceleration` costs and saves: `python -m benchmarks.acceleration`, on the demo's models; fp8 where the card has it.

Held-out prompts and pictures; each video beside the exact one of the same seed. With `--full FOLDER`, on a GPU: what a pass that reuses
takes at full size, what deciding takes where none does, fp8, and 4 steps with a LoRA (random weights, written to FOLDER; how often a
pass reuses tells only a trained model).
"""

import argparse
import gc
import random
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from demo.training.scenes import caption
from deployments.settings import Wan22Settings, Wan26Settings
from deployments.video.kernels.install import pick_operations
from deployments.video.engine import WanEngine
from deployments.video.acceleration.choice import Shortcuts
from deployments.video.build import build_wan22, build_wan26
from deployments.wire import Acceleration, Image, VideoRequest

THRESHOLDS = (0.02, 0.05, 0.08, 0.12, 0.2, 0.3)
Row = tuple[str, str, str, str, str, str]


@dataclass(frozen=True)
class Way:
    """How videos are made."""

    name: str
    acceleration: Acceleration
    shortcuts: Shortcuts


EXACT = Way("exact", "none", Shortcuts())
DISTILLED = Way("distilled", "distilled", Shortcuts())


def ways(device: Literal["cpu", "cuda"]) -> Iterator[Way]:
    """All that are compared."""
    for threshold in THRESHOLDS:
        yield Way(f"cache, {threshold:g}", "cache", Shortcuts(cache_threshold=threshold))
    yield DISTILLED
    if device == "cuda":
        yield Way("fp8", "fp8", Shortcuts(fp8=pick_operations(Wan26Settings())))


def compare(
    name: str, engine: WanEngine, asked: list[tuple[str, Image | None]], device: Literal["cpu", "cuda"]
) -> Iterator[Row]:
    """A row a way: share of reused passes, time of denoising, PSNR and SSIM to the exact videos, mean and worst."""
    exact = [_make(engine, prompt, image, EXACT) for prompt, image in asked]
    for way in ways(device):
        made = [_make(engine, prompt, image, way) for prompt, image in asked]
        noise = [psnr(one[0], other[0]) for one, other in zip(made, exact, strict=True)]
        alike = [_ssim(one[0], other[0]) for one, other in zip(made, exact, strict=True)]
        seconds = [sum(one[1] for one in some) for some in (exact, made)]
        yield (
            name,
            way.name,
            f"{statistics.mean(one[2] for one in made):.0%}",
            f"{seconds[0] / seconds[1]:.2f}",
            f"{statistics.mean(noise):.1f} ({min(noise):.1f}) dB",
            f"{statistics.mean(alike):.3f} ({min(alike):.3f})",
        )


def _make(engine: WanEngine, prompt: str, image: Image | None, way: Way) -> tuple[Frames, float, float]:
    """The frames, seconds of denoising, share of reused passes."""
    engine._shortcuts = way.shortcuts
    sink = Collected()
    steps, cfg = (4, 1.0) if way is DISTILLED else (STEPS, CFG)
    finished = engine.generate(VideoRequest(prompt, "", SIDE, SIDE, FRAMES, steps, cfg, 1, image, way.acceleration), sink)
    part, _, whole = finished.acceleration.rpartition("=")[2].partition("/")
    return np.concatenate(sink.chunks), finished.seconds["denoise"], int(part) / int(whole) if whole else 0.0


def _ssim(one: Frames, other: Frames) -> float:
    return statistics.mean(float(structural_similarity(a, b, channel_axis=2)) for a, b in zip(one, other, strict=True))


def run_demo(device: Literal["cpu", "cuda"]) -> Iterator[Row]:
    """The demo's two models."""
    demo = load(demo_checkpoints(), device)
    texts = [(ask(scene), None) for scene in shape_scenes(12)]
    yield from compare("Wan26, 12 prompts", demo.wan26, [*texts], device)
    lot = random.Random(4)
    pictures = [(caption(scene, lot), picture_of(scene)[0]) for scene in image_scenes(12)]
    yield from compare("Wan26, 12 pictures", demo.wan26, [*pictures], device)
    yield from compare("Wan22GGUF, 12 pictures", demo.wan22, [*pictures], device)


def run_full(folder: Path) -> Iterator[Row]:
    """Seconds of 30 steps at 832x480, 33 frames: exact; with a cache that never reuses; with one that always does; in fp8; distilled."""
    from benchmarks.wan import PICTURE, Checkpoints
    from benchmarks.wan_checkpoints import write_lora
    from deployments.video import fused, unfused

    rows = torch.randn(1000, 13824, device="cuda", dtype=torch.bfloat16)
    (ours, scales), (theirs, expected) = fused.quantise_rows(rows), unfused.quantise_rows(rows)
    same = (ours.view(torch.uint8) == theirs.view(torch.uint8)).float().mean()
    yield (
        "quantised rows",
        f"as PyTorch's: {same:.5f}",
        "",
        f"scales {float((scales / expected - 1).abs().max()):.1e} apart",
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
        ("A14B, Q5_K", lambda: build_wan22(Wan22Settings(device="cuda"), large), PICTURE),
    )
    fp8 = Way("fp8", "fp8", Shortcuts(fp8=pick_operations(Wan26Settings())))
    reuses = [Way("cache", "cache", Shortcuts(cache_threshold=threshold)) for threshold in (1e-9, 0.999)]
    for name, build, picture in engines:
        engine, exact = build(), 0.0
        engine.warm(832, 480, 33)
        # The first two for what is compiled, and which product is chosen, at first use.
        for way in (fp8, DISTILLED, EXACT, *reuses, fp8, DISTILLED):
            engine._shortcuts = way.shortcuts
            steps, cfg = (4, 1.0) if way is DISTILLED else (30, 6.0)
            request = VideoRequest("a cat", "", 832, 480, 33, steps, cfg, 1, picture, way.acceleration)
            finished = engine.generate(request, Collected())
            seconds = finished.seconds["denoise"]
            exact = seconds if way is EXACT else exact
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
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="full size, on a GPU")
    arguments = parser.parse_args()
    table = Table("model", "way", "reused", "denoising, times as fast", "PSNR to exact (worst)", "SSIM (worst)")
    for row in run_demo(arguments.device) if arguments.full is None else run_full(arguments.full):
        table.add_row(*row)
        print(*row, sep=" | ", flush=True)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
