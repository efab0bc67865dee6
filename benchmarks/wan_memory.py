"""Measures the GPU memory of the Wan engines: its peaks under a limit, and its growth over time."""

import os
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.wan_checkpoints import Checkpoints
from benchmarks.wan_measurement import GB, Row, full_request, image_request, run_request, settle
from benchmarks.wan_sinks import Timer
from deployments.settings import Wan22Settings, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.engine import WanEngine
from deployments.video.memory.plan import activation_bytes
from deployments.wire import VideoRequest


def run_memory(checkpoints: Checkpoints, _: float) -> Iterator[Row]:
    """Measure memory as on smaller GPUs, by capping the process's memory."""
    models = checkpoints.wan26
    for cap, frames in ((48, 81), (24, 81)):
        settle()
        engine = build_wan26(Wan26Settings(device="cuda", memory_gib=cap * GB / 2**30), models)
        yield from measure_memory(f"1.3B, capped at {cap} GB", engine, full_request(frames=frames, steps=4))
        del engine
    for settings in ({"memory_gib": 48 * GB / 2**30}, {"memory_gib": 24 * GB / 2**30}):
        settle()
        cap = round(settings["memory_gib"] * 2**30 / GB)
        engine = build_wan22(Wan22Settings(device="cuda", **settings), checkpoints.wan22)
        for frames in (33, 81):
            timer = yield from measure_memory(f"A14B, capped at {cap} GB", engine, image_request(frames, 4))
        yield f"A14B, capped at {cap} GB, 81 frames: a step", "", f"{timer.step:.2f} s"
        del engine


def measure_memory(name: str, engine: WanEngine, request: VideoRequest) -> Generator[Row, None, Timer]:
    """Measure the peak memory of one request, and compare it with the estimate."""
    name = f"{name}, {request.width}x{request.height}x{request.num_frames}"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    timer = run_request(engine, request)[1]
    peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    mode = engine.image_mode if request.image is not None else engine.text_mode
    assert mode is not None
    expected = activation_bytes(mode.transformers["transformer"].config, request, batch_guidance=False)
    yield name, "", f"{engine.hardware}"
    yield f"{name}: peak (reserved)", "", f"{peak / GB:.1f} ({reserved / GB:.1f}) GB"
    yield f"{name}: beside the weights; estimate", "", f"{(peak - before) / GB:.1f}; {expected / GB:.1f} GB"
    return timer


def run_endurance(checkpoints: Checkpoints, _: float) -> Iterator[Row]:
    """Watch the memory over many short videos of several sizes."""
    settle()
    engine = build_wan26(Wan26Settings(device="cuda"), checkpoints.wan26)
    sizes = ((256, 256, 9), (320, 192, 5), (192, 320, 13), (416, 240, 9), (240, 416, 5))
    for number in range(1001):
        width, height, frames = sizes[number % len(sizes)]
        request = full_request(prompt=f"cat {number % 50}", frames=frames, steps=2)
        run_request(engine, replace(request, width=width, height=height, seed=number))
        if number in (50, 250, 500, 1000):
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            held, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
            yield (
                f"1.3B: after {number} videos",
                "flat",
                f"{held / GB:.3f} GB, reserved {reserved / GB:.2f}; host {resident / GB:.2f} GB",
            )
