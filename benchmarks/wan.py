"""`python -m benchmarks.wan`: both Wan models at full size on a GPU, compared with plain diffusers.

Weights are random, since times do not depend on their values, in files of the published formats: a
diffusers folder of Wan2.1-T2V-1.3B and a pair of Q5_K GGUF files of Wan2.2-I2V-A14B, with the full
UMT5-XXL and VAE. A whole request ends with the bytes of an MP4, which another thread encodes as the
ingress does.

The floor is the time of the transformer's matrix products alone, at the rate that one large bf16
product reaches in the same run. A block of width d and feed-forward width f over n tokens and m
tokens of text takes n (8 d² + 4 d f) + 4 n² d operations in self-attention and feed-forward, and 4
n d² + 4 m d² + 4 n m d in cross-attention, where a multiplication and an addition count as one
each.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import WanImageToVideoPipeline
from PIL import Image

from benchmarks.wan_checkpoints import LARGE, SMALL, Checkpoints
from benchmarks.wan_cold import run_cold
from benchmarks.wan_measurement import CUDA, GB, IMAGE, STEPS, Row, full_request, image_request, run_request, settle
from benchmarks.wan_memory import measure_memory, run_endurance, run_memory
from benchmarks.wan_plain import load_parts, load_plain, run, run_latents, timed
from benchmarks.wan_sinks import Cancelling, Encoding, Timer
from benchmarks.wan_vae import run_vae
from deployments.errors import Cancelled
from deployments.settings import Size, Wan22Settings, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.checkpoints.experts import load_expert
from deployments.video.checkpoints.folder import load_scheduler
from deployments.video.engine import WanEngine
from deployments.wire import VideoRequest

TEXT_TOKENS = 512


def measure_peak() -> float:
    """Return the operations per second of a large bf16 matrix product."""
    one, other = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        one @ other
    seconds = [timed(lambda: one @ other) for _ in range(20)]
    return 2 * 8192**3 / statistics.median(seconds)


def count_operations(config: dict[str, Any], frames: int) -> float:
    """Return the operations of one forward pass at 832x480; see the module's docstring."""
    n = (1 + (frames - 1) // 4) * 30 * 52
    d, f, m = config["num_attention_heads"] * 128, config["ffn_dim"], TEXT_TOKENS
    block = n * (8 * d**2 + 4 * d * f) + 4 * n**2 * d + 4 * n * d**2 + 4 * m * d**2 + 4 * n * m * d
    return float(block * config["num_layers"])


def run_wan26(checkpoints: Checkpoints, peak: float) -> Iterator[Row]:
    """Measure Wan 1.3B, text to video."""
    models = checkpoints.wan26
    settle()
    begun = time.perf_counter()
    engine = build_wan26(Wan26Settings(device="cuda", warm_up=(Size(),)), models)
    yield "1.3B: load and warm-up", "", f"{time.perf_counter() - begun:.1f} s; {engine.hardware}"
    floor = 2 * STEPS * count_operations(SMALL, 33) / peak
    request = full_request()
    yield from _report("1.3B", engine, request, floor=floor, bar="<= 1.6")
    whole = min(run_request(engine, request)[0] for _ in range(2))
    for width, height, frames in ((640, 368, 33), (480, 832, 17), (832, 480, 49), (512, 512, 25)):
        other = replace(request, width=width, height=height, num_frames=frames, steps=2)
        first, again = (run_request(engine, other)[0] for _ in range(2))
        yield f"1.3B, {width}x{height}x{frames}: first over second time", "<= 2 s", f"{first - again:.2f} s"
    yield from measure_cancel("1.3B", engine, full_request(prompt="a dog"))
    yield from compare_exactness(engine, Path(models.text))
    del engine
    settle()
    pipeline = load_plain(Path(models.text), torch.bfloat16)
    plain = min(run(pipeline, STEPS) for _ in range(2))
    yield "1.3B: plain diffusers, whole request to frames; over ours", ">= 1.5", f"{plain:.2f} s; {plain / whole:.2f}"


def measure_cancel(name: str, engine: WanEngine, request: VideoRequest) -> Iterator[Row]:
    """Measure the time from cancelling to an idle GPU, at several moments of a request."""
    step = run_request(engine, request)[1].step
    for stage, delays in (("denoise", (0.5 * step, 1.25 * step, 2.9 * step)), ("encode", (0.0, 0.03))):
        waits = []
        for number, delay in enumerate(delays):
            sink = Cancelling(stage, delay)
            try:
                engine.generate(replace(request, prompt=f"{stage} {number}"), sink)
            except Cancelled:
                torch.cuda.synchronize()
                waits.append(time.perf_counter() - sink.left)
        yield f"{name}: cancelled in {stage}, until the GPU is idle", "<= 1 step", f"{max(waits) / step:.2f} steps at most"


def compare_exactness(engine: WanEngine, folder: Path) -> Iterator[Row]:
    """Compare our bf16 latents and those of diffusers with diffusers' in float32.

    The video is small because float32 is slow.
    """
    request = replace(full_request(frames=17, steps=8), width=416, height=240)
    ours = engine.sample(engine.start(request, Timer()))
    plain = {}
    for dtype in (torch.float32, torch.bfloat16):
        plain[dtype] = run_latents(load_plain(folder, dtype, vae_dtype=dtype), request)
        settle()
    errors = [float((latents - plain[torch.float32]).norm()) for latents in (ours, plain[torch.bfloat16])]
    size = float(plain[torch.float32].norm())
    yield "1.3B: error of our bf16 latents over that of diffusers' bf16", "<= 1.1", f"{errors[0] / errors[1]:.2f}"
    yield "1.3B: the two errors, relative to the latents' size", "", f"{errors[0] / size:.2e}, {errors[1] / size:.2e}"


def run_wan22(checkpoints: Checkpoints, peak: float) -> Iterator[Row]:
    """Measure Wan 2.2 I2V-A14B with both experts; our engine is capped at 80 GB."""
    models = checkpoints.wan22
    settle()
    folder, image = Path(models.folder), Image.fromarray(IMAGE)
    files = {"transformer": models.high_noise, "transformer_2": models.low_noise}
    experts = {
        part: load_expert(file, folder=folder, part=part, dtype=torch.bfloat16, device=CUDA) for part, file in files.items()
    }
    pipeline = WanImageToVideoPipeline(
        **load_parts(folder, torch.bfloat16, torch.bfloat16),
        scheduler=load_scheduler(folder, None),
        **experts,
        boundary_ratio=0.9,
    )
    run(pipeline, 2, image)  # warm-up
    plain = (run(pipeline, 5, image) - run(pipeline, 2, image)) / 3
    yield "A14B: plain diffusers, quantised, a step", "", f"{plain:.2f} s"
    del experts, pipeline
    settle()
    begun = time.perf_counter()
    engine = build_wan22(Wan22Settings(device="cuda", memory_gib=80 * GB / 2**30), models)
    yield "A14B: load (page cache warm), capped at 80 GB", "", f"{time.perf_counter() - begun:.1f} s; {engine.hardware}"
    begun = time.perf_counter()
    engine.warm_up(832, 480, 33)
    yield "A14B: warm-up", "", f"{time.perf_counter() - begun:.1f} s"
    floor = 2 * STEPS * count_operations(LARGE, 33) / peak
    timer = yield from _report("A14B", engine, image_request(33, STEPS), floor=floor, bar="<= 1.35")
    yield "A14B: plain diffusers' step over ours", ">= 1.5", f"{plain / timer.step:.2f}"
    timer = yield from measure_memory("A14B, capped at 80 GB", engine, image_request(81, 4))
    floor = 2 * count_operations(LARGE, 81) / peak
    yield "A14B, 81 frames: a step, over the floor", "<= 1.25", f"{timer.step:.2f} s, {timer.step / floor:.2f}"
    yield from measure_cancel("A14B", engine, image_request(33, 6))


def _report(name: str, engine: WanEngine, request: VideoRequest, *, floor: float, bar: str) -> Generator[Row, None, Timer]:
    torch.cuda.reset_peak_memory_stats()
    sink = Encoding()
    begun = time.perf_counter()
    engine.generate(request, sink)
    size = len(sink.finish())
    end = time.perf_counter()
    whole, last, chunks = end - begun, sink.times["denoise"][-1], sink.times["chunk"]
    yield (
        f"{name}, 832x480x33, {STEPS} steps: whole request to MP4",
        "",
        f"{whole:.2f} s (floor {floor:.2f} s), {size / 1e6:.1f} MB",
    )
    yield f"{name}: whole request over the floor", bar, f"{whole / floor:.2f}"
    yield f"{name}: a step (two forwards), over the floor", "", f"{sink.step * 1000:.0f} ms, {sink.step * STEPS / floor:.2f}"
    yield f"{name}: encoding", "", f"{(sink.times['denoise'][0] - sink.times['encode'][0]) * 1000:.0f} ms"
    yield f"{name}: first chunk after the last step", "<= 50 ms", f"{(chunks[0] - last) * 1000:.0f} ms"
    yield (
        f"{name}: last chunk; MP4 after the last step",
        "<= 300 ms",
        f"{(chunks[-1] - last) * 1000:.0f}; {(end - last) * 1000:.0f} ms",
    )
    return sink


RUNS = {
    "vae": run_vae,
    "wan26": run_wan26,
    "wan22": run_wan22,
    "memory": run_memory,
    "cold": run_cold,
    "endurance": run_endurance,
}


def main() -> None:
    """Print the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[*RUNS], help=f"what to measure: {', '.join(RUNS)}; default: everything")
    parser.add_argument(
        "--folder", type=Path, help="folder for the checkpoints, 36 GB, which is kept; default: a temporary one"
    )
    arguments = parser.parse_args()
    peak = measure_peak()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; bf16 matrix product: {peak / 1e12:.0f} TFLOP/s")
    with tempfile.TemporaryDirectory() as temporary:
        checkpoints = Checkpoints(arguments.folder or Path(temporary))
        for part in arguments.parts:
            for figure, bar, value in RUNS[part](checkpoints, peak):
                print(f"{figure:75} {bar:>9}  {value}", flush=True)


if __name__ == "__main__":
    main()
