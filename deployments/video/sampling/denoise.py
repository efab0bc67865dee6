"""The denoise loop, in which a step runs the transformer, applies guidance and calls the solver.

Its result is that of diffusers' loop, which stops the CPU several times per step (the scheduler
solves on the CPU, the boundary is compared on the GPU), so that kernels are launched late. Here the
CPU runs one forward pass ahead of the GPU, while progress and cancelling follow the steps that the
GPU has finished.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from deployments.video.sampling.conditions import Conditions
from deployments.video.sampling.guidance import Branch, Guidance
from deployments.video.sampling.pace import Pace
from deployments.video.sampling.solver import Solver


class Transformers(Protocol):
    """Selects the transformer for each forward pass."""

    def select(self, timestep: float, branch: Branch) -> Any:
        """Return the transformer for ``timestep``, 1000 to 0, ready to be called on its device."""


@torch.no_grad()
def denoise(
    *,
    transformers: Transformers,
    solver: Solver,
    conditions: Conditions,
    guidance: Guidance,
    report: Callable[[int], None],
    devices: int = 1,
) -> torch.Tensor:
    """Return denoised latents, float32 ``[1, 16, t, h, w]``, on the device of the conditions.

    ``report`` is called with the number of finished steps; it may raise, which ends the loop.
    ``devices`` is the number of devices that share a step's passes.
    """
    latents = solver.start(conditions.noise)
    timesteps = torch.tensor(solver.timesteps).to(latents.device)
    pace = Pace(latents.device, report, ahead=devices)
    for index, timestep in enumerate(solver.timesteps):
        step = _Step(
            transformers=transformers,
            conditions=conditions,
            pace=pace,
            timestep=timestep,
            timestep_tensor=timesteps[index],
            latents=latents,
        )
        latents = solver.step(guidance.velocity(step))
        pace.finish_step()
    pace.finish()
    return latents


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step's forward passes, each on the device of its transformer."""

    transformers: Transformers
    conditions: Conditions
    pace: Pace
    timestep: float
    timestep_tensor: torch.Tensor
    """The timestep on the device of the latents, so that no pass has to copy it from the CPU."""
    latents: torch.Tensor

    def predict(self, embeddings: torch.Tensor, branch: Branch) -> torch.Tensor:
        """Run one forward pass; see ``Predictor``."""
        transformer, channels = self.transformers.select(self.timestep, branch), self.conditions.channels
        count, device, dtype = len(embeddings), transformer.device, transformer.dtype
        inputs = self.latents if channels is None else torch.cat([self.latents, channels], dim=1)
        # Triton kernels and events go to the current device.
        with torch.cuda.device_of(self.timestep_tensor.to(device)):  # type: ignore[no-untyped-call]
            predicted = transformer(
                hidden_states=_repeat(inputs.to(device, dtype), count),
                timestep=self.timestep_tensor.to(device).expand(count),
                encoder_hidden_states=embeddings.to(device, dtype),
                return_dict=False,
                **{name: _repeat(value.to(device), count) for name, value in self.conditions.arguments.items()},
            )[0]
            self.pace.launch()
        assert isinstance(predicted, torch.Tensor)
        return predicted.to(self.latents.device)


def _repeat(tensor: torch.Tensor, count: int) -> torch.Tensor:
    return tensor if count == 1 else tensor.expand(count, *tensor.shape[1:])
