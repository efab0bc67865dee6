"""A scheduler's whole run as one table, so that no step of it waits for the GPU.

Every step of a linear multistep solver (UniPC, DPM-Solver++, Euler) gives a weighted sum of the first noise and of the velocities
seen so far. The weights depend on the schedule alone: diffusers' own scheduler is run once, on unit vectors, and what it answers are
the weights. A step is then one product on the GPU, where the scheduler itself copies and solves on the CPU, each time.
"""

from typing import Any

import torch


class Solver:
    """One request's run of ``scheduler`` over ``steps`` steps."""

    def __init__(self, scheduler: Any, steps: int) -> None:
        own = type(scheduler).from_config(scheduler.config)  # schedulers keep state
        own.set_timesteps(steps)
        own.set_begin_index(0)
        self.timesteps: list[int | float] = own.timesteps.tolist()
        """What the transformer is told at each step, 1000 to 0."""
        count = len(self.timesteps)
        units = torch.eye(count + 1, dtype=torch.float64)[:, None]
        rows = []
        sample = units[0]
        for step, timestep in enumerate(own.timesteps):
            sample = own.step(units[step + 1], timestep, sample, return_dict=False)[0]
            rows.append(sample[0])
        self._weights = torch.stack(rows).float()
        self._terms: torch.Tensor | None = None
        self._done = 0

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """Takes the first noise, any shape; returns the first latents, float32 on the device of ``noise``."""
        self._weights = self._weights.to(noise.device)
        self._terms = noise.new_empty((len(self.timesteps) + 1, *noise.shape), dtype=torch.float32)
        self._terms[0] = noise
        self._done = 0
        return noise.float()

    def step(self, velocity: torch.Tensor) -> torch.Tensor:
        """Takes the velocity that was predicted for the last latents; returns the next latents, float32."""
        assert self._terms is not None, "start comes first"
        seen = self._done + 2
        self._terms[seen - 1] = velocity
        latents = self._weights[self._done, :seen] @ self._terms[:seen].flatten(1)
        self._done += 1
        return latents.view_as(self._terms[0])
