"""Measures Wan's VAE decoder, ours and diffusers'."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from diffusers import AutoencoderKLWan

from benchmarks.wan_checkpoints import Checkpoints
from benchmarks.wan_measurement import CUDA, Row
from benchmarks.wan_plain import timed
from demo.checkpoints import demo_checkpoints
from deployments.settings import VideoSettings
from deployments.video.checkpoints.folder import load_vae
from deployments.video.kernels.install import pick_operations
from deployments.video.vae.bands import decode_bands
from deployments.video.vae.decode_stream import decode_stream, denormalise, to_host
from deployments.video.vae.fast import install_fast_modules


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
    if (count := torch.cuda.device_count()) > 1:
        yield from _measure_bands(latents, count)
    folder = demo_checkpoints().vace / "vae"
    exact, plain, ours = (load_vae(folder, dtype, CUDA) for dtype in (torch.float32, torch.bfloat16, torch.bfloat16))
    install_fast_modules(ours, pick_operations(VideoSettings()))
    noise = torch.nn.functional.interpolate(torch.randn(1, 16, 5, 8, 8, device="cuda"), size=(5, 16, 16))
    truth = torch.cat([*decode_stream(exact, denormalise(exact, noise))], dim=2)
    for name, vae in (("diffusers' bf16", plain), ("ours, bf16", ours)):
        video = torch.cat([*decode_stream(vae, denormalise(vae, noise))], dim=2).float()
        error = float(((video - truth) / 2).square().mean())
        yield f"demo's VAE, {name}: PSNR to float32", "", f"{-10 * np.log10(error):.1f} dB"


def _measure_bands(latents: torch.Tensor, count: int) -> Iterator[Row]:
    """Measure bands of the frames on a GPU each, to host memory, and compare with one GPU."""
    vaes = []
    for number in range(count):
        torch.manual_seed(0)
        vae = AutoencoderKLWan().to(torch.device("cuda", number), torch.bfloat16).eval().requires_grad_(False)
        install_fast_modules(vae, pick_operations(VideoSettings()))
        vaes.append(vae)
    one = [*decode_stream(vaes[0], denormalise(vaes[0], latents))]
    several = [*decode_bands(vaes, denormalise(vaes[0], latents))]
    together = [torch.cat([band.to("cuda") for band in group], dim=3) for group in several]
    difference = max(float((a.float() - b.float()).abs().max()) for a, b in zip(one, together, strict=True))
    for name, used in (("one GPU", vaes[:1]), (f"{count} GPUs", vaes)):
        work = lambda used=used: [*to_host(decode_bands(used, denormalise(used[0], latents)))]  # noqa: E731
        seconds = [timed(work) for _ in range(5)]
        yield f"VAE on {name}: 33 frames to host memory", "", f"{min(seconds[1:]) * 1000:.0f} ms"
    yield f"VAE on {count} GPUs: largest difference of pixels in -1..1", "", f"{difference:.1e}"


def _profile(work: Callable[[], object]) -> Iterator[Row]:
    """Yield the kernels that take the longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        timed(work)
    for event in sorted(profile.key_averages(), key=lambda e: -e.device_time_total)[:12]:
        yield f"  {event.key[:90]}", f"x {event.count}", f"{event.device_time_total / 1000:.1f} ms"
