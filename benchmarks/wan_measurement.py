"""What the measurements of the Wan models share: their requests, units and rows."""

import gc
import time

import numpy as np
import torch

from benchmarks.wan_sinks import Timer
from deployments.video.engine import WanEngine
from deployments.wire import Image as Frame
from deployments.wire import VideoRequest

STEPS = 30
IMAGE = np.random.default_rng(0).integers(0, 255, (480, 832, 3), dtype=np.uint8)
CUDA = torch.device("cuda")
GB = 1e9
Row = tuple[str, str, str]
"""What was measured, the bar that it should reach (or nothing), and its value."""


def full_request(
    *, prompt: str = "a cat", frames: int = 33, steps: int = STEPS, cfg: float = 6.0, image: Frame | None = None
) -> VideoRequest:
    """Return a request of 832x480."""
    return VideoRequest(
        prompt=prompt,
        negative_prompt="",
        width=832,
        height=480,
        num_frames=frames,
        steps=steps,
        cfg=cfg,
        seed=1,
        image=image,
    )


def image_request(frames: int, steps: int) -> VideoRequest:
    """Return a request of 832x480 with an image."""
    return full_request(frames=frames, steps=steps, cfg=5.0, image=IMAGE)


def run_request(engine: WanEngine, request: VideoRequest) -> tuple[float, Timer]:
    """Run ``request``; return the seconds that it takes, and the times of its stages."""
    timer = Timer()
    begun = time.perf_counter()
    engine.generate(request, timer)
    return time.perf_counter() - begun, timer


def settle() -> None:
    """Free the memory of what was measured before, and lift the limit on it."""
    gc.collect()
    torch.cuda.set_per_process_memory_fraction(1.0, torch.cuda.current_device())
    torch.cuda.empty_cache()
