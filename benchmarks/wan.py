"""`python -m benchmarks.wan`: both Wan models at full size through our loaders and engine, beside plain diffusers, on a GPU.

Weights are random (times do not depend on their values), in files of the true formats: a diffusers folder of Wan2.1-T2V-1.3B, and a
pair of Q5_K GGUF files of Wan2.2-I2V-A14B. The text encoder is cut to two layers. Times end when the frames are on the host.

The floor is the time of the transformer's matrix products alone, at the rate that one large bf16 product reaches in the same run:
a block of width d and feed-forward width f over n tokens and m tokens of text takes n (8 d² + 4 d f) + 4 n² d operations in
self-attention and feed-forward, and 4 n d² + 4 m d² + 4 n m d in cross-attention; multiplying and adding count as one each.
"""

import argparse
import gc
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKLWan, WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel
from PIL import Image
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from demo.checkpoints import demo_checkpoints
from demo.gguf_file import original_name
from demo.training.pack import make_scheduler
from deployments.settings import Size, VideoSettings, Wan22Models, Wan22Settings, Wan26Models, Wan26Settings
from deployments.video.acceleration import accelerate, accelerate_vae
from deployments.video.checkpoints import load_vae
from deployments.video.decode_stream import decode_stream, denormalise
from deployments.video.generate import Path as EnginePath
from deployments.video.generate import WanEngine
from deployments.video.prompts import Prompts
from deployments.video.wan import build_wan26
from deployments.wire import FrameChunk, Progress, VideoRequest

SMALL: dict[str, Any] = {"num_attention_heads": 12, "attention_head_dim": 128, "ffn_dim": 8960, "num_layers": 30}
LARGE: dict[str, Any] = {"num_attention_heads": 40, "attention_head_dim": 128, "ffn_dim": 13824, "num_layers": 40}
TEXT_TOKENS = 512
STEPS = 30
PICTURE = np.random.default_rng(0).integers(0, 255, (480, 832, 3), dtype=np.uint8)


class Timer:
    """A sink that notes when events come."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {"encode": [], "denoise": [], "decode": [], "chunk": []}

    def progress(self, progress: Progress) -> None:
        """See Sink."""
        self.times[progress.stage].append(time.perf_counter())

    def ready(self) -> None:
        """See Sink."""

    def chunk(self, chunk: FrameChunk) -> None:
        """See Sink."""
        self.times["chunk"].append(time.perf_counter())

    @property
    def step(self) -> float:
        """Median seconds of a denoise step."""
        return statistics.median(b - a for a, b in itertools.pairwise(self.times["denoise"]))


def measure_peak() -> float:
    """Operations a second of a bf16 matrix product."""
    one, other = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        one @ other
    seconds = [_timed(lambda: one @ other) for _ in range(20)]
    return 2 * 8192**3 / statistics.median(seconds)


def count_operations(config: dict[str, Any], frames: int) -> float:
    """Of one forward pass at 832x480; see the module's text."""
    n = (1 + (frames - 1) // 4) * 30 * 52
    d, f, m = config["num_attention_heads"] * 128, config["ffn_dim"], TEXT_TOKENS
    block = n * (8 * d**2 + 4 * d * f) + 4 * n**2 * d + 4 * n * d**2 + 4 * m * d**2 + 4 * n * m * d
    return float(block * config["num_layers"])


Row = tuple[str, str, str]


def run_wan26(folder: Path, peak: float) -> Iterator[Row]:
    """Wan 1.3B, text to video."""
    write_wan26(folder)
    _settle()
    begun = time.perf_counter()
    engine = build_wan26(Wan26Settings(device="cuda", warm_up=(Size(),)), Wan26Models(text=str(folder)))
    yield "1.3B: load and warm-up", "", f"{time.perf_counter() - begun:.1f} s"
    floor = 2 * STEPS * count_operations(SMALL, 33) / peak
    whole, timer = _request(engine, VideoRequest("a cat", "", 832, 480, 33, STEPS, 6.0, 1))
    yield from _report("1.3B", whole, timer, floor, "<= 1.6")
    for width, height, frames in ((640, 368, 33), (480, 832, 17), (832, 480, 49), (512, 512, 25)):
        request = VideoRequest("a cat", "", width, height, frames, 2, 6.0, 1)
        first, again = (_request(engine, request)[0] for _ in range(2))
        yield f"1.3B, {width}x{height}x{frames}: first over second time", "<= 2 s", f"{first - again:.2f} s"
    yield "1.3B: memory at its peak", "", f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    yield from compare_exactness(engine, folder)
    del engine
    _settle()
    pipeline = WanPipeline.from_pretrained(
        folder, dtype=torch.bfloat16, vae=load_vae(folder / "vae", torch.float32, torch.device("cuda"))
    )
    pipeline.to("cuda")
    theirs = min(_run(pipeline, STEPS) for _ in range(2))
    yield "1.3B: plain diffusers, whole request", "", f"{theirs:.2f} s"
    yield "1.3B: plain diffusers over ours", ">= 1.5", f"{theirs / whole:.2f}"


def compare_exactness(engine: WanEngine, folder: Path) -> Iterator[Row]:
    """Our bf16 latents and those of diffusers' bf16 against diffusers in float32; small, for float32 is slow."""
    request = VideoRequest("a cat", "", 416, 240, 17, 8, 6.0, 1)
    ours = engine.latents(request, Timer())
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        pipeline = WanPipeline.from_pretrained(folder, dtype=dtype).to("cuda")
        found[dtype] = _run_latents(pipeline, request)
    errors = [float((latents - found[torch.float32]).norm()) for latents in (ours, found[torch.bfloat16])]
    size = float(found[torch.float32].norm())
    yield "1.3B: error of our bf16 latents over that of diffusers' bf16", "<= 1.1", f"{errors[0] / errors[1]:.2f}"
    yield "1.3B: the two errors, of the latents' size", "", f"{errors[0] / size:.2e}, {errors[1] / size:.2e}"


def run_vae(peak: float) -> Iterator[Row]:
    """The decoder: published widths for time, the demo's trained weights for its error."""
    latents = torch.randn(1, 16, 9, 60, 104, device="cuda")
    for name, dtype, fast in (("diffusers, float32", torch.float32, False), ("ours, bf16", torch.bfloat16, True)):
        vae = AutoencoderKLWan().to("cuda", dtype).eval().requires_grad_(False)
        if fast:
            accelerate_vae(vae, VideoSettings(), vae.device)
        seconds = [_timed(lambda vae=vae: [*decode_stream(vae, denormalise(vae, latents))]) for _ in range(4)]  # type: ignore[misc]
        yield f"VAE, {name}: 33 frames", "", f"{min(seconds[1:]) * 1000:.0f} ms (the first time {seconds[0]:.1f} s)"
        if fast:
            yield from _profile(lambda vae=vae: [*decode_stream(vae, denormalise(vae, latents))])  # type: ignore[misc]
    folder = demo_checkpoints().vace / "vae"
    cuda = torch.device("cuda")
    exact, plain, ours = load_vae(folder, torch.float32, cuda), load_vae(folder, torch.bfloat16, cuda), None
    ours = load_vae(folder, torch.bfloat16, cuda)
    accelerate_vae(ours, VideoSettings(), cuda)
    noise = torch.nn.functional.interpolate(torch.randn(1, 16, 5, 8, 8, device="cuda"), size=(5, 16, 16))
    truth = torch.cat([*decode_stream(exact, denormalise(exact, noise))], dim=2)
    for name, vae in (("diffusers' bf16", plain), ("ours, bf16", ours)):
        made = torch.cat([*decode_stream(vae, denormalise(vae, noise))], dim=2).float()
        error = float(((made - truth) / 2).square().mean())
        yield f"demo's VAE, {name}: PSNR to float32", "", f"{-10 * np.log10(error):.1f} dB"


def run_wan22(folder: Path, peak: float) -> Iterator[Row]:
    """Wan 2.2 I2V-A14B, both experts."""
    models = write_wan22(folder)
    _settle()
    settings, cuda = Wan22Settings(device="cuda"), torch.device("cuda")
    begun = time.perf_counter()
    shared = load_conditioning(folder, torch.bfloat16, torch.bfloat16, cuda)
    experts = load_experts(models, folder, torch.bfloat16, cuda)
    yield "A14B: load, quantised (page cache warm)", "", f"{time.perf_counter() - begun:.1f} s"
    scheduler, picture = load_scheduler(folder, None), Image.fromarray(PICTURE)
    parts = {"tokenizer": shared.tokenizer, "text_encoder": shared.text_encoder, "vae": shared.vae, "scheduler": scheduler}
    pipeline = WanImageToVideoPipeline(**parts, **experts, boundary_ratio=0.9)
    theirs = (-_run(pipeline, 2, picture) + _run(pipeline, 5, picture)) / 3
    yield "A14B: plain diffusers, a step", "", f"{theirs:.2f} s"
    begun = time.perf_counter()
    for expert in dequantise_where_it_fits([*experts.values()], "dequantised", cuda):
        accelerate(expert, settings, cuda)
    accelerate_vae(shared.vae, settings, cuda)
    prompts = Prompts(shared.tokenizer, shared.text_encoder, settings.prompt_cache_bytes)
    engine = WanEngine(prompts, shared.vae, None, EnginePath(WanImageToVideoPipeline, scheduler, experts, True, 0.9), "")
    yield "A14B: dequantise", "", f"{time.perf_counter() - begun:.1f} s"
    begun = time.perf_counter()
    engine.warm(832, 480, 33)
    yield "A14B: warm-up", "", f"{time.perf_counter() - begun:.1f} s"
    floor = 2 * STEPS * count_operations(LARGE, 33) / peak
    whole, timer = _request(engine, VideoRequest("a cat", "", 832, 480, 33, STEPS, 5.0, 1, image=PICTURE))
    yield from _report("A14B", whole, timer, floor, "<= 1.35")
    yield "A14B: plain diffusers' step over ours", ">= 1.5", f"{theirs / timer.step:.2f}"
    _, timer = _request(engine, VideoRequest("a cat", "", 832, 480, 81, 3, 5.0, 1, image=PICTURE))
    floor = 2 * count_operations(LARGE, 81) / peak
    yield "A14B, 81 frames: a step, over the floor", "<= 1.25", f"{timer.step:.2f} s, {timer.step / floor:.2f}"
    yield "A14B: memory at its peak, 81 frames", "80 GB", f"{torch.cuda.max_memory_allocated() / 1e9:.0f} GB"


def _report(name: str, whole: float, timer: Timer, floor: float, bar: str) -> Iterator[Row]:
    chunks = timer.times["chunk"]
    yield f"{name}, 832x480x33, {STEPS} steps: whole request", "", f"{whole:.2f} s (floor {floor:.2f} s)"
    yield f"{name}: whole request over the floor", bar, f"{whole / floor:.2f}"
    yield f"{name}: a step (two forwards), over the floor", "", f"{timer.step * 1000:.0f} ms, {timer.step * STEPS / floor:.2f}"
    yield f"{name}: encoding", "", f"{(timer.times['denoise'][0] - timer.times['encode'][0]) * 1000:.0f} ms"
    yield f"{name}: first chunk after the last step", "<= 50 ms", f"{(chunks[0] - timer.times['denoise'][-1]) * 1000:.0f} ms"
    yield f"{name}: last chunk after the last step", "", f"{(chunks[-1] - timer.times['denoise'][-1]) * 1000:.0f} ms"


def _request(engine: WanEngine, request: VideoRequest) -> tuple[float, Timer]:
    timer = Timer()
    begun = time.perf_counter()
    engine.generate(request, timer)
    return time.perf_counter() - begun, timer


def _run(pipeline: Any, steps: int, *image: Image.Image) -> float:
    pipeline.set_progress_bar_config(disable=True)
    return _timed(lambda: pipeline(*image, "a cat", "", 480, 832, 33, num_inference_steps=steps, guidance_scale=6.0))


def _run_latents(pipeline: Any, request: VideoRequest) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    latents = pipeline(
        *(request.prompt, request.negative_prompt, request.height, request.width, request.num_frames),
        num_inference_steps=request.steps,
        guidance_scale=request.cfg,
        generator=torch.Generator("cpu").manual_seed(request.seed),
        output_type="latent",
    ).frames
    assert isinstance(latents, torch.Tensor)
    return latents


def _timed(work: Callable[[], object]) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - begun


def _profile(work: Callable[[], object]) -> Iterator[Row]:
    """The kernels that take longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
        _timed(work)
    for event in sorted(seen.key_averages(), key=lambda e: -e.device_time_total)[:12]:
        yield f"  {event.key[:90]}", f"x {event.count}", f"{event.device_time_total / 1000:.1f} ms"


def _settle() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def write_wan26(folder: Path) -> None:
    """A diffusers folder of Wan2.1-T2V-1.3B."""
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        transformer = WanTransformer3DModel(**SMALL)
        torch.set_default_dtype(torch.float32)
    WanPipeline(transformer=transformer, scheduler=make_scheduler(8.0), **_shared()).save_pretrained(folder)


def _shared() -> dict[str, Any]:
    config = UMT5Config(vocab_size=256384, d_model=4096, d_kv=64, d_ff=10240, num_layers=2, num_heads=64)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        encoder = UMT5EncoderModel(config)
        torch.set_default_dtype(torch.float32)
        vae = AutoencoderKLWan()
    tokenizer = AutoTokenizer.from_pretrained(demo_checkpoints().vace / "tokenizer")
    return {"tokenizer": tokenizer, "text_encoder": encoder, "vae": vae}


def write_wan22(folder: Path) -> Wan22Models:
    """A diffusers folder of Wan2.2-I2V-A14B without its experts, and the experts as Q5_K GGUF files of random blocks."""
    with init_empty_weights():
        expert = WanTransformer3DModel(**LARGE, in_channels=36, out_channels=16)
    for name, part in _shared().items():
        part.save_pretrained(folder / name)
    make_scheduler(5.0).save_pretrained(folder / "scheduler")
    for name in ("transformer", "transformer_2"):
        expert.save_config(folder / name)
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "WanImageToVideoPipeline", "boundary_ratio": 0.9}))
    paths = [folder / f"Wan2.2-I2V-A14B-{name}-Q5_K_S.gguf" for name in ("HighNoise", "LowNoise")]
    for path in paths:
        _write_random_gguf(path, expert)
    return Wan22Models(folder=str(folder), high_noise=paths[0], low_noise=paths[1])


def _write_random_gguf(path: Path, model: Any) -> None:
    writer = gguf.GGUFWriter(path, arch="wan")
    writer.add_name(path.stem)
    kind = gguf.GGMLQuantizationType.Q5_K
    for name, tensor in model.state_dict().items():
        if tensor.ndim == 2 and name.endswith(".weight"):
            blocks = torch.randint(256, (tensor.numel() // 256, 176), dtype=torch.uint8, device="cuda")
            scales = torch.tensor([2e-5, 3e-4], dtype=torch.float16, device="cuda")  # weights of some hundredths
            blocks[:, :4] = scales.view(torch.uint8)
            writer.add_tensor(original_name(name), blocks.view(tensor.shape[0], -1).cpu().numpy(), raw_dtype=kind)
        else:
            writer.add_tensor(original_name(name), (0.02 * torch.randn(tensor.shape)).numpy())
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()


def main() -> None:
    """Prints the table, row by row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["vae", "wan26", "wan22"], help="of: vae, wan26, wan22")
    parts = parser.parse_args().parts
    peak = measure_peak()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; bf16 matrix product: {peak / 1e12:.0f} TFLOP/s")
    for part in parts:
        with tempfile.TemporaryDirectory() as temporary:
            runs = {"vae": lambda: run_vae(peak), "wan26": lambda: run_wan26(Path(temporary), peak)}
            runs["wan22"] = lambda: run_wan22(Path(temporary), peak)
            for figure, bar, value in runs[part]():
                print(f"{figure:75} {bar:>9}  {value}", flush=True)


if __name__ == "__main__":
    main()
