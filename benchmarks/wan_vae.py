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
from deployments.video.vae.decode_stream import decode_stream, denormalise
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
    folder = demo_checkpoints().vace / "vae"
    exact, plain, ours = (load_vae(folder, dtype, CUDA) for dtype in (torch.float32, torch.bfloat16, torch.bfloat16))
    install_fast_modules(ours, pick_operations(VideoSettings()))
    noise = torch.nn.functional.interpolate(torch.randn(1, 16, 5, 8, 8, device="cuda"), size=(5, 16, 16))
    truth = torch.cat([*decode_stream(exact, denormalise(exact, noise))], dim=2)
    for name, vae in (("diffusers' bf16", plain), ("ours, bf16", ours)):
        video = torch.cat([*decode_stream(vae, denormalise(vae, noise))], dim=2).float()
        error = float(((video - truth) / 2).square().mean())
        yield f"demo's VAE, {name}: PSNR to float32", "", f"{-10 * np.log10(error):.1f} dB"


def _profile(work: Callable[[], object]) -> Iterator[Row]:
    """Yield the kernels that take the longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        timed(work)
    for event in sorted(profile.key_averages(), key=lambda e: -e.device_time_total)[:12]:
        yield f"  {event.key[:90]}", f"x {event.count}", f"{event.device_time_total / 1000:.1f} ms"
