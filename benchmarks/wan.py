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
import gc
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline
from PIL import Image

from benchmarks.wan_checkpoints import LARGE, SMALL, write_shared, write_wan22, write_wan26
from benchmarks.wan_plain import load_parts, load_plain, run, run_latents, timed
from benchmarks.wan_sinks import Cancelling, Encoding, Timer
from demo.checkpoints import demo_checkpoints
from deployments.errors import Cancelled
from deployments.settings import Size, VideoSettings, Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.build import build_wan22, build_wan26
from deployments.video.checkpoints.experts import load_expert
from deployments.video.checkpoints.folder import load_scheduler, load_vae
from deployments.video.engine import WanEngine
from deployments.video.kernels.install import pick_operations
from deployments.video.memory.plan import activation_bytes
from deployments.video.vae.decode_stream import decode_stream, denormalise
from deployments.video.vae.fast import install_fast_modules
from deployments.wire import Image as Frame
from deployments.wire import VideoRequest

TEXT_TOKENS = 512
STEPS = 30
IMAGE = np.random.default_rng(0).integers(0, 255, (480, 832, 3), dtype=np.uint8)
CUDA = torch.device("cuda")
GB = 1e9
Row = tuple[str, str, str]


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


class Checkpoints:
    """The checkpoints in ``folder``, each written when it is first used."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def shared(self) -> Path:
        """The text encoder, tokenizer and VAE of all models."""
        folder = self._folder / "shared"
        if not folder.exists():
            write_shared(folder)
        return folder

    @property
    def wan26(self) -> Wan26Models:
        """The checkpoint of Wan2.1-T2V-1.3B."""
        folder = self._folder / "wan26"
        if not folder.exists():
            write_wan26(folder, self.shared)
        return Wan26Models(text=str(folder))

    @property
    def wan22(self) -> Wan22Models:
        """The checkpoint of Wan2.2-I2V-A14B."""
        folder = self._folder / "wan22"
        if not folder.exists():
            write_wan22(folder, self.shared)
        high, low = sorted(folder.glob("*.gguf"))
        return Wan22Models(folder=str(folder), high_noise=high, low_noise=low)


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


def run_wan26(checkpoints: Checkpoints, peak: float) -> Iterator[Row]:
    """Measure Wan 1.3B, text to video."""
    models = checkpoints.wan26
    _settle()
    begun = time.perf_counter()
    engine = build_wan26(Wan26Settings(device="cuda", warm_up=(Size(),)), models)
    yield "1.3B: load and warm-up", "", f"{time.perf_counter() - begun:.1f} s; {engine.hardware}"
    floor = 2 * STEPS * count_operations(SMALL, 33) / peak
    request = full_request()
    yield from _report("1.3B", engine, request, floor, "<= 1.6")
    whole = min(_request(engine, request)[0] for _ in range(2))
    for width, height, frames in ((640, 368, 33), (480, 832, 17), (832, 480, 49), (512, 512, 25)):
        other = replace(request, width=width, height=height, num_frames=frames, steps=2)
        first, again = (_request(engine, other)[0] for _ in range(2))
        yield f"1.3B, {width}x{height}x{frames}: first over second time", "<= 2 s", f"{first - again:.2f} s"
    yield from measure_cancel("1.3B", engine, full_request(prompt="a dog"))
    yield from compare_exactness(engine, Path(models.text))
    del engine
    _settle()
    pipeline = load_plain(Path(models.text), torch.bfloat16)
    plain = min(run(pipeline, STEPS) for _ in range(2))
    yield "1.3B: plain diffusers, whole request to frames; over ours", ">= 1.5", f"{plain:.2f} s; {plain / whole:.2f}"


def measure_cancel(name: str, engine: WanEngine, request: VideoRequest) -> Iterator[Row]:
    """Measure the time from cancelling to an idle GPU, at several moments of a request."""
    step = _request(engine, request)[1].step
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
        _settle()
    errors = [float((latents - plain[torch.float32]).norm()) for latents in (ours, plain[torch.bfloat16])]
    size = float(plain[torch.float32].norm())
    yield "1.3B: error of our bf16 latents over that of diffusers' bf16", "<= 1.1", f"{errors[0] / errors[1]:.2f}"
    yield "1.3B: the two errors, relative to the latents' size", "", f"{errors[0] / size:.2e}, {errors[1] / size:.2e}"


def run_vae(_: Checkpoints, peak: float) -> Iterator[Row]:
    """Measure the decoder: its time at the published widths, its error with the demo's weights."""
    latents = torch.randn(1, 16, 9, 60, 104, device="cuda")
    for name, dtype, fast in (("diffusers, float32", torch.float32, False), ("ours, bf16", torch.bfloat16, True)):
        vae = AutoencoderKLWan().to("cuda", dtype).eval().requires_grad_(False)
        if fast:
            install_fast_modules(vae, pick_operations(VideoSettings()))
        seconds = [timed(lambda vae=vae: [*decode_stream(vae, denormalise(vae, latents))]) for _ in range(4)]  # type: ignore[misc]
        yield f"VAE, {name}: 33 frames", "", f"{min(seconds[1:]) * 1000:.0f} ms (the first time {seconds[0]:.1f} s)"
        if fast:
            yield from _profile(lambda vae=vae: [*decode_stream(vae, denormalise(vae, latents))])  # type: ignore[misc]
    folder = demo_checkpoints().vace / "vae"
    exact, plain, ours = (load_vae(folder, dtype, CUDA) for dtype in (torch.float32, torch.bfloat16, torch.bfloat16))
    install_fast_modules(ours, pick_operations(VideoSettings()))
    noise = torch.nn.functional.interpolate(torch.randn(1, 16, 5, 8, 8, device="cuda"), size=(5, 16, 16))
    truth = torch.cat([*decode_stream(exact, denormalise(exact, noise))], dim=2)
    for name, vae in (("diffusers' bf16", plain), ("ours, bf16", ours)):
        video = torch.cat([*decode_stream(vae, denormalise(vae, noise))], dim=2).float()
        error = float(((video - truth) / 2).square().mean())
        yield f"demo's VAE, {name}: PSNR to float32", "", f"{-10 * np.log10(error):.1f} dB"


def run_wan22(checkpoints: Checkpoints, peak: float) -> Iterator[Row]:
    """Measure Wan 2.2 I2V-A14B with both experts; our engine is capped at 80 GB."""
    models = checkpoints.wan22
    _settle()
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
    _settle()
    begun = time.perf_counter()
    engine = build_wan22(Wan22Settings(device="cuda", memory_gib=80 * GB / 2**30), models)
    yield "A14B: load (page cache warm), capped at 80 GB", "", f"{time.perf_counter() - begun:.1f} s; {engine.hardware}"
    begun = time.perf_counter()
    engine.warm_up(832, 480, 33)
    yield "A14B: warm-up", "", f"{time.perf_counter() - begun:.1f} s"
    floor = 2 * STEPS * count_operations(LARGE, 33) / peak
    timer = yield from _report("A14B", engine, _image_request(33, STEPS), floor, "<= 1.35")
    yield "A14B: plain diffusers' step over ours", ">= 1.5", f"{plain / timer.step:.2f}"
    timer = yield from measure_memory("A14B, capped at 80 GB", engine, _image_request(81, 4))
    floor = 2 * count_operations(LARGE, 81) / peak
    yield "A14B, 81 frames: a step, over the floor", "<= 1.25", f"{timer.step:.2f} s, {timer.step / floor:.2f}"
    yield from measure_cancel("A14B", engine, _image_request(33, 6))


def run_memory(checkpoints: Checkpoints, _: float) -> Iterator[Row]:
    """Measure memory as on smaller GPUs, by capping the process's memory."""
    models = checkpoints.wan26
    for cap, frames in ((48, 81), (24, 81)):
        _settle()
        engine = build_wan26(Wan26Settings(device="cuda", memory_gib=cap * GB / 2**30), models)
        yield from measure_memory(f"1.3B, capped at {cap} GB", engine, full_request(frames=frames, steps=4))
        del engine
    for settings in ({"memory_gib": 48 * GB / 2**30}, {"memory_gib": 24 * GB / 2**30}):
        _settle()
        cap = round(settings["memory_gib"] * 2**30 / GB)
        engine = build_wan22(Wan22Settings(device="cuda", **settings), checkpoints.wan22)
        for frames in (33, 81):
            timer = yield from measure_memory(f"A14B, capped at {cap} GB", engine, _image_request(frames, 4))
        yield f"A14B, capped at {cap} GB, 81 frames: a step", "", f"{timer.step:.2f} s"
        del engine


def measure_memory(name: str, engine: WanEngine, request: VideoRequest) -> Generator[Row, None, Timer]:
    """Measure the peak memory of one request, and compare it with the estimate."""
    name = f"{name}, {request.width}x{request.height}x{request.num_frames}"
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    timer = _request(engine, request)[1]
    peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    mode = engine.image_mode if request.image is not None else engine.text_mode
    assert mode is not None
    expected = activation_bytes(mode.transformers["transformer"].config, request, batch_guidance=False)
    yield name, "", f"{engine.hardware}"
    yield f"{name}: peak (reserved)", "", f"{peak / GB:.1f} ({reserved / GB:.1f}) GB"
    yield f"{name}: beside the weights; estimate", "", f"{(peak - before) / GB:.1f}; {expected / GB:.1f} GB"
    return timer


def run_cold(checkpoints: Checkpoints, _: float) -> Iterator[Row]:
    """Measure the time from files that are in no cache to the first denoise step."""
    folder = Path(checkpoints.wan26.text)
    files = list(folder.glob("*/*.safetensors"))
    size = sum(file.stat().st_size for file in files)
    for _attempt in range(2):
        _settle()
        _drop(files)
        read = timed(lambda: _read(files))
        _drop(files)
        begun = time.perf_counter()
        sink = Timer()
        engine = build_wan26(Wan26Settings(device="cuda"), checkpoints.wan26)
        built = time.perf_counter() - begun
        engine.generate(full_request(steps=1), sink)
        first = sink.times["denoise"][-1] - begun
        yield "1.3B and UMT5: reading the files", "", f"{read:.1f} s ({size / GB:.1f} GB, {size / GB / read:.1f} GB/s)"
        yield (
            "1.3B and UMT5: loaded; first step done; over reading",
            "<= 1.3",
            f"{built:.1f} s; {first:.1f} s; {first / read:.2f}",
        )
        del engine


def run_endurance(checkpoints: Checkpoints, _: float) -> Iterator[Row]:
    """Watch the memory over many short videos of several sizes."""
    _settle()
    engine = build_wan26(Wan26Settings(device="cuda"), checkpoints.wan26)
    sizes = ((256, 256, 9), (320, 192, 5), (192, 320, 13), (416, 240, 9), (240, 416, 5))
    for number in range(1001):
        width, height, frames = sizes[number % len(sizes)]
        request = full_request(prompt=f"cat {number % 50}", frames=frames, steps=2)
        _request(engine, replace(request, width=width, height=height, seed=number))
        if number in (50, 250, 500, 1000):
            resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            held, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
            yield (
                f"1.3B: after {number} videos",
                "flat",
                f"{held / GB:.3f} GB, reserved {reserved / GB:.2f}; host {resident / GB:.2f} GB",
            )


def _report(name: str, engine: WanEngine, request: VideoRequest, floor: float, bar: str) -> Generator[Row, None, Timer]:
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


def _image_request(frames: int, steps: int) -> VideoRequest:
    return full_request(frames=frames, steps=steps, cfg=5.0, image=IMAGE)


def _request(engine: WanEngine, request: VideoRequest) -> tuple[float, Timer]:
    timer = Timer()
    begun = time.perf_counter()
    engine.generate(request, timer)
    return time.perf_counter() - begun, timer


def _profile(work: Callable[[], object]) -> Iterator[Row]:
    """Yield the kernels that take the longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        timed(work)
    for event in sorted(profile.key_averages(), key=lambda e: -e.device_time_total)[:12]:
        yield f"  {event.key[:90]}", f"x {event.count}", f"{event.device_time_total / 1000:.1f} ms"


def _settle() -> None:
    gc.collect()
    torch.cuda.set_per_process_memory_fraction(1.0, torch.cuda.current_device())
    torch.cuda.empty_cache()


def _read(files: list[Path]) -> None:
    block = bytearray(16 * 2**20)
    for file in files:
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(block):
                pass


def _drop(files: list[Path]) -> None:
    """Drop ``files`` from the page cache."""
    for file in files:
        descriptor = os.open(file, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


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
