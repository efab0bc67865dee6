"""`python -m benchmarks.wan_spread`: what `spread: guidance` saves on a machine with two GPUs.

It measures a denoise step with guidance at 832x480, for the transformers of Wan 2.1 1.3B and
Wan 2.2 A14B at full size, once on one GPU and once with the pass without the prompt on the other.
Weights and inputs are random; both GPUs get the same ones. It also prints how far the latents of
both ways differ, and the memory of both GPUs.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler, WanTransformer3DModel

from benchmarks.wan_checkpoints import LARGE, SMALL
from deployments.settings import VideoSettings
from deployments.video.kernels.attention import describe_attention
from deployments.video.kernels.install import install_fast_blocks
from deployments.video.sampling.conditions import Conditions
from deployments.video.sampling.denoise import denoise
from deployments.video.sampling.guidance import Branch, Guidance
from deployments.video.sampling.solver import Solver

STEPS = 6
SETTINGS = VideoSettings(device="cuda")
HEIGHT, WIDTH = 480 // 8, 832 // 8
MODELS: dict[str, dict[str, Any]] = {
    "1.3B": {**SMALL, "in_channels": 16, "out_channels": 16},
    "A14B": {**LARGE, "in_channels": 36, "out_channels": 16},
}


@dataclass
class Pair:
    """The transformers of the passes with and without the prompt."""

    with_prompt: Any
    without: Any

    def select(self, timestep: float, branch: Branch) -> Any:
        """See ``Transformers``."""
        return self.without if branch else self.with_prompt


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


def make_transformer(config: dict[str, Any], device: torch.device) -> Any:
    """Return a transformer with random bfloat16 weights, the same on every device."""
    torch.manual_seed(0)
    torch.cuda.manual_seed_all(0)
    torch.set_default_dtype(torch.bfloat16)
    with device:
        transformer = WanTransformer3DModel(**config)
    torch.set_default_dtype(torch.float32)
    install_fast_blocks(transformer, SETTINGS, device)
    return transformer.eval().requires_grad_(False)


def run(pair: Pair, frames: int, channels: int) -> tuple[torch.Tensor, float]:
    """Return the latents of a short run on ``pair``, and the milliseconds of a step."""
    generator = torch.Generator("cpu").manual_seed(1)
    device = torch.device("cuda", 0)
    size = (1 + (frames - 1) // 4, HEIGHT, WIDTH)
    noise = torch.randn((1, 16, *size), generator=generator).to(device)
    image = torch.randn((1, channels, *size), generator=generator).to(device) if channels else None
    positive, negative = (torch.randn((1, 512, 4096), generator=generator).to(device, torch.bfloat16) for _ in range(2))
    scheduler = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0)
    watch = Stopwatch()
    latents = denoise(
        transformers=pair,
        solver=Solver(scheduler, STEPS),
        conditions=Conditions(noise, image),
        guidance=Guidance(positive=positive, negative=negative, scale=5.0),
        report=watch.report,
        devices=1 if pair.without is pair.with_prompt else 2,
    )
    return latents, watch.milliseconds()


def main() -> None:
    """Print a line for each model and number of frames."""
    first, second = torch.device("cuda", 0), torch.device("cuda", 1)
    attention = describe_attention(SETTINGS, torch.cuda.get_device_capability(), torch.bfloat16)
    print(f"2 x {torch.cuda.get_device_name()}, torch {torch.__version__}, {STEPS} steps, bf16, {attention}")
    for name, config in MODELS.items():
        near, far = make_transformer(config, first), make_transformer(config, second)
        for frames in (33, 81):
            for warm_up in (Pair(near, near), Pair(near, far)):
                run(warm_up, frames, config["in_channels"] - 16)  # compiles the kernels
            exact, alone = run(Pair(near, near), frames, config["in_channels"] - 16)
            spread, both = run(Pair(near, far), frames, config["in_channels"] - 16)
            difference = (exact - spread).abs().max().item()
            memory = [torch.cuda.max_memory_allocated(device) / 2**30 for device in (first, second)]
            print(
                f"{name}, {frames} frames: {alone:.0f} ms on one GPU, {both:.0f} ms on two, {alone / both:.2f} times; "
                f"largest difference of latents {difference:.2e}; peak memory {memory[0]:.1f} and {memory[1]:.1f} GiB",
                flush=True,
            )
        del near, far, warm_up
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
