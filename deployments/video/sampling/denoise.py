"""The denoise loop, in which a step runs the transformer, applies guidance and calls the solver.

Its result is that of diffusers' loop, which stops the CPU several times per step (the scheduler
solves on the CPU, the boundary is compared on the GPU), so that kernels are launched late. Here the
CPU runs one forward pass ahead of the GPU, while progress and cancelling follow the steps that the
GPU has finished.
"""

from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor, wait
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
    guided = guidance.guided_steps(len(solver.timesteps))
    with ThreadPoolExecutor(1, thread_name_prefix="second-device") as launcher:
        for index, timestep in enumerate(solver.timesteps):
            step = _Step(
                transformers=transformers,
                conditions=conditions,
                pace=pace,
                launcher=launcher,
                timestep=timestep,
                timestep_tensor=timesteps[index],
                latents=latents,
            )
            latents = solver.step(guidance.velocity(step, guided=index < guided))
            pace.finish_step()
    pace.finish()
    return latents


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step's forward passes, each on the device of its transformer."""

    transformers: Transformers
    conditions: Conditions
    pace: Pace
    launcher: Executor
    """The thread that launches the passes of a second device."""
    timestep: float
    timestep_tensor: torch.Tensor
    """The timestep on the device of the latents, so that no pass has to copy it from the CPU."""
    latents: torch.Tensor

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Run one forward pass; see ``Predictor``."""
        return self._run(self._prepare(embeddings, 0))

    def predict_both(self, positive: torch.Tensor, negative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Run both passes, at the same time if they are on two devices; see ``Predictor``."""
        # A copy between devices waits for the work of both, so all inputs are copied first.
        near, far = self._prepare(positive, 0), self._prepare(negative, 1)
        if near.device == far.device:
            return self._run(near), self._run(far)
        # One thread would fill the queue of one GPU before it came to the other.
        launched = self.launcher.submit(far)
        try:
            with_prompt = near()
        finally:
            wait([launched])
        without = launched.result()
        for forward in (near, far):
            self.pace.launch(forward.device)
        return with_prompt, without.to(self.latents.device)

    def _run(self, forward: "_ForwardPass") -> torch.Tensor:
        predicted = forward()
        self.pace.launch(forward.device)
        return predicted.to(self.latents.device)

    def _prepare(self, embeddings: torch.Tensor, branch: Branch) -> "_ForwardPass":
        """Return a forward pass with its inputs on the device of its transformer."""
        transformer, channels = self.transformers.select(self.timestep, branch), self.conditions.channels
        count, device, dtype = len(embeddings), transformer.device, transformer.dtype
        inputs = self.latents if channels is None else torch.cat([self.latents, channels], dim=1)
        return _ForwardPass(
            transformer=transformer,
            device=device,
            inputs={
                "hidden_states": _repeat(inputs.to(device, dtype), count),
                "timestep": self.timestep_tensor.to(device).expand(count),
                "encoder_hidden_states": embeddings.to(device, dtype),
                **{name: _repeat(value.to(device), count) for name, value in self.conditions.arguments.items()},
            },
        )


@dataclass(frozen=True, kw_only=True)
class _ForwardPass:
    """A call of a transformer, which may be made in any thread."""

    transformer: Any
    device: torch.device
    inputs: dict[str, torch.Tensor]

    @torch.no_grad()  # gradients are switched off for each thread
    def __call__(self) -> torch.Tensor:
        # Triton kernels go to the current device, which is set for each thread too.
        with torch.cuda.device_of(self.inputs["hidden_states"]):  # type: ignore[no-untyped-call]
            predicted = self.transformer(**self.inputs, return_dict=False)[0]
        assert isinstance(predicted, torch.Tensor)
        return predicted


def _repeat(tensor: torch.Tensor, count: int) -> torch.Tensor:
    return tensor if count == 1 else tensor.expand(count, *tensor.shape[1:])
