"""`python -m benchmarks.wan_spread`: what `spread` saves on a machine with several GPUs.

It measures a denoise step at 832x480, for the transformers of Wan 2.1 1.3B and Wan 2.2 A14B at full
size: with guidance on one GPU and with `spread: guidance`, without guidance on one GPU and with its
pass split over all. Weights and inputs are random; all GPUs get the same ones. Latents are compared
with those of one GPU, and for 1.3B with float32: a split pass multiplies other numbers of rows,
which in bf16 rounds differently. The memory of all GPUs is printed.
"""

import time
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel

from benchmarks.wan_checkpoints import LARGE, SMALL
from deployments.settings import VideoSettings
from deployments.video.kernels.attention import describe_attention
from deployments.video.kernels.install import install_fast_blocks
from deployments.video.mode import Mode
from deployments.video.run_transformers import RunTransformers
from deployments.video.sampling.conditions import Conditions
from deployments.video.sampling.denoise import denoise
from deployments.video.sampling.guidance import Guidance
from deployments.video.sampling.solver import Solver

STEPS = 5
SETTINGS = VideoSettings(device="cuda")
HEIGHT, WIDTH = 480 // 8, 832 // 8
MODELS: dict[str, dict[str, Any]] = {
    "1.3B": {**SMALL, "in_channels": 16, "out_channels": 16},
    "A14B": {**LARGE, "in_channels": 36, "out_channels": 16},
}


class Stopwatch:
    """Notes when steps are reported as finished."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._done = 0

    def report(self, done: int) -> None:
        """Note the time at which a further step is finished."""
        if done > self._done:
            self._done = done
            self.times.append(time.perf_counter())

    def milliseconds(self) -> float:
        """Return the mean time of a step, the first one excluded."""
        return 1000 * (self.times[-1] - self.times[0]) / (len(self.times) - 1)


def make_transformer(config: dict[str, Any], device: torch.device, dtype: torch.dtype = torch.bfloat16) -> Any:
    """Return a transformer with random weights that bfloat16 can hold, the same on every device."""
    torch.manual_seed(0)
    torch.cuda.manual_seed_all(0)
    torch.set_default_dtype(torch.bfloat16)
    with device:
        transformer = WanTransformer3DModel(**config)
    torch.set_default_dtype(torch.float32)
    transformer.to(dtype)
    install_fast_blocks(transformer, SETTINGS, device)
    return transformer.eval().requires_grad_(False)


def make_mode(*transformers: Any, splits_guidance: bool = True) -> Mode:
    """Return a mode that runs these transformers, each on its device."""
    first, *twins = ({"transformer": transformer} for transformer in transformers)
    return Mode(
        pipeline_class=WanPipeline, scheduler=None, transformers=first, twins=tuple(twins), splits_guidance=splits_guidance
    )


def run(mode: Mode, frames: int, *, guided: bool, dtype: torch.dtype = torch.bfloat16) -> tuple[torch.Tensor, float]:
    """Return the latents of a short run, and the milliseconds of a step."""
    generator = torch.Generator("cpu").manual_seed(1)
    device = torch.device("cuda", 0)
    channels = mode.transformers["transformer"].config.in_channels - 16
    size = (1 + (frames - 1) // 4, HEIGHT, WIDTH)
    noise = torch.randn((1, 16, *size), generator=generator).to(device)
    image = torch.randn((1, channels, *size), generator=generator).to(device) if channels else None
    positive, negative = (torch.randn((1, 512, 4096), generator=generator).to(device, torch.bfloat16) for _ in range(2))
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    watch = Stopwatch()
    latents = denoise(
        transformers=RunTransformers(mode, most=len(mode.devices)),
        solver=Solver(scheduler, STEPS),
        conditions=Conditions(noise, image),
        guidance=Guidance(positive=positive.to(dtype), negative=negative.to(dtype) if guided else None, scale=5.0),
        report=watch.report,
    )
    return latents, watch.milliseconds()


def relative(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return how far ``one`` is from ``other``, relative to its size."""
    return float((one - other).norm() / other.norm())


def main() -> None:
    """Print a line for each model, number of frames and kind of step."""
    devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    attention = describe_attention(SETTINGS, torch.cuda.get_device_capability(), torch.bfloat16)
    print(f"{len(devices)} x {torch.cuda.get_device_name()}, torch {torch.__version__}, {STEPS} steps, bf16, {attention}")
    for name, config in MODELS.items():
        transformers = [make_transformer(config, device) for device in devices]
        one, all_devices = make_mode(transformers[0]), make_mode(*transformers)
        for frames in (33, 81):
            for guided in (True, False):
                for warm_up in (one, all_devices):
                    run(warm_up, frames, guided=guided)  # compiles the kernels
                exact, alone = run(one, frames, guided=guided)
                spread, together = run(all_devices, frames, guided=guided)
                memory = ", ".join(f"{torch.cuda.max_memory_allocated(device) / 2**30:.1f}" for device in devices)
                print(
                    f"{name}, {frames} frames, {'guided' if guided else 'unguided'}: {alone:.0f} ms on one GPU, "
                    f"{together:.0f} ms on {len(devices)}, {alone / together:.2f} times; latents differ by "
                    f"{relative(spread, exact):.1e}; peak memory {memory} GiB",
                    flush=True,
                )
                if name == "1.3B" and frames == 33 and not guided:
                    reference = make_mode(make_transformer(config, devices[0], torch.float32))
                    true = run(reference, frames, guided=False, dtype=torch.float32)[0]
                    errors = relative(exact, true), relative(spread, true)
                    print(f"error against float32: {errors[0]:.3e} on one GPU, {errors[1]:.3e} on {len(devices)}", flush=True)
                    del reference
        del transformers, one, all_devices, warm_up
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
