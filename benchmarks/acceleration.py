"""What `acceleration: cache` costs and saves: `python -m benchmarks.acceleration`, on the demo's models.

Held-out prompts and pictures; each video beside the exact one of the same seed. With `--full FOLDER`, on a GPU: what a pass that reuses
takes at full size, and what deciding takes where none does (random weights, written to FOLDER; how often one reuses tells only a
trained model).
"""

import argparse
import random
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from skimage.metrics import structural_similarity

from benchmarks.judge import Frames
from benchmarks.questions import CFG, FRAMES, SIDE, STEPS, Collected, ask, image_scenes, load, picture_of, psnr, shape_scenes
from demo.checkpoints import demo_checkpoints
from demo.training.scenes import caption
from deployments.video.generate import WanEngine
from deployments.wire import Image, VideoRequest

THRESHOLDS = (0.02, 0.05, 0.08, 0.12, 0.2, 0.3)
Row = tuple[str, str, str, str, str, str]


def compare(name: str, engine: WanEngine, asked: list[tuple[str, Image | None]]) -> Iterator[Row]:
    """A row a threshold: share of reused passes, time of denoising, PSNR and SSIM to the exact videos, mean and worst."""
    exact = [_make(engine, prompt, image, None) for prompt, image in asked]
    for threshold in THRESHOLDS:
        made = [_make(engine, prompt, image, threshold) for prompt, image in asked]
        noise = [psnr(one[0], other[0]) for one, other in zip(made, exact, strict=True)]
        alike = [_ssim(one[0], other[0]) for one, other in zip(made, exact, strict=True)]
        seconds = [sum(one[1] for one in some) for some in (exact, made)]
        reused = statistics.mean(one[2] for one in made)
        yield (
            name,
            f"{threshold:g}",
            f"{reused:.0%}",
            f"{seconds[0] / seconds[1]:.2f}",
            f"{statistics.mean(noise):.1f} ({min(noise):.1f}) dB",
            f"{statistics.mean(alike):.3f} ({min(alike):.3f})",
        )


def _make(engine: WanEngine, prompt: str, image: Image | None, threshold: float | None) -> tuple[Frames, float, float]:
    """The frames, seconds of denoising, share of reused passes."""
    engine._cache_threshold = threshold
    sink = Collected()
    request = VideoRequest(prompt, "", SIDE, SIDE, FRAMES, STEPS, CFG, 1, image, "none" if threshold is None else "cache")
    finished = engine.generate(request, sink)
    reused = 0.0
    if finished.acceleration:
        part, whole = finished.acceleration.rpartition("=")[2].split("/")
        reused = int(part) / int(whole)
    return np.concatenate(sink.chunks), finished.seconds["denoise"], reused


def _ssim(one: Frames, other: Frames) -> float:
    return statistics.mean(float(structural_similarity(a, b, channel_axis=2)) for a, b in zip(one, other, strict=True))


def run_demo() -> Iterator[Row]:
    """The demo's two models."""
    demo = load(demo_checkpoints())
    texts = [(ask(scene), None) for scene in shape_scenes(12)]
    yield from compare("Wan26, 12 prompts", demo.wan26, [*texts])
    lot = random.Random(4)
    pictures = [(caption(scene, lot), picture_of(scene)[0]) for scene in image_scenes(12)]
    yield from compare("Wan26, 12 pictures", demo.wan26, [*pictures])
    yield from compare("Wan22GGUF, 12 pictures", demo.wan22, [*pictures])


def run_full(folder: Path) -> Iterator[Row]:
    """Seconds of 30 steps at 832x480, 33 frames: exact; with a cache that never reuses; with one that always does."""
    from benchmarks.wan import Checkpoints
    from deployments.settings import Wan26Settings
    from deployments.video.wan import build_wan26

    engine = build_wan26(Wan26Settings(device="cuda"), Checkpoints(folder).wan26)
    for threshold in (None, None, 1e-9, 0.999):
        engine._cache_threshold = threshold
        begun = time.perf_counter()
        request = VideoRequest("a cat", "", 832, 480, 33, 30, 6.0, 1, None, "none" if threshold is None else "cache")
        finished = engine.generate(request, Collected())
        whole = time.perf_counter() - begun
        done = finished.acceleration or "exact"
        yield "1.3B, random weights", done, "", f"{finished.seconds['denoise']:.2f} s", f"whole {whole:.2f} s", ""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", type=Path, metavar="FOLDER", help="full size, on a GPU")
    folder = parser.parse_args().full
    table = Table("model", "threshold", "reused", "denoising, times as fast", "PSNR to exact (worst)", "SSIM (worst)")
    for row in run_demo() if folder is None else run_full(folder):
        table.add_row(*row)
    Console(width=150).print(table)


if __name__ == "__main__":
    main()
