"""A scheduler's whole run as one table of weights, so that no step of it waits for the GPU.

Each step of a linear multistep solver (UniPC, DPM-Solver++, Euler) returns a weighted sum of the
first noise and of the velocities so far. The weights depend on the schedule alone: diffusers'
scheduler is run once, on unit vectors, and its results are the weights. A step is then one product
on the GPU, where the scheduler itself would copy to the CPU and solve there each time.
"""

from typing import Any

import torch


class Solver:
    """One request's run of ``scheduler`` over ``steps`` steps, or the last ``count`` of them."""

    def __init__(self, scheduler: Any, steps: int, count: int | None = None) -> None:
        self._fresh, scheduler = (type(scheduler).from_config(scheduler.config) for _ in range(2))  # they keep state
        for one in (self._fresh, scheduler):
            one.set_timesteps(steps)
            begin = 0 if count is None else len(one.timesteps) - count
            one.set_begin_index(begin)
        timesteps = scheduler.timesteps[begin:]
        self.timesteps: list[int | float] = timesteps.tolist()
        """The timestep that the transformer gets at each step, 1000 to 0."""
        count = len(self.timesteps)
        units = torch.eye(count + 1, dtype=torch.float64)[:, None]
        rows = []
        sample = units[0]
        for step, timestep in enumerate(timesteps):
            sample = scheduler.step(units[step + 1], timestep, sample, return_dict=False)[0]
            rows.append(sample[0])
        self._weights = torch.stack(rows).float()
        self._terms: torch.Tensor | None = None
        self._done = 0

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """Return ``latents`` of a video with ``noise``, as the first step expects it."""
        first = torch.tensor(self.timesteps[:1], device=latents.device)
        # A scheduler that has run would add the noise of the step that it has come to.
        if hasattr(self._fresh, "add_noise"):
            noisy: torch.Tensor = self._fresh.add_noise(latents, noise, first)
        else:
            noisy = self._fresh.scale_noise(latents, first, noise)
        return noisy

    def start(self, noise: torch.Tensor) -> torch.Tensor:
        """Take the first noise, of any shape, and return the first latents.

        Latents are float32 on the device of ``noise``.
        """
        self._weights = self._weights.to(noise.device)
        self._terms = noise.new_empty((len(self.timesteps) + 1, *noise.shape), dtype=torch.float32)
        self._terms[0] = noise
        self._done = 0
        return noise.float()

    def step(self, velocity: torch.Tensor) -> torch.Tensor:
        """Take the velocity predicted for the last latents, and return the next ones, float32."""
        assert self._terms is not None, "call start first"
        used = self._done + 2
        self._terms[used - 1] = velocity
        latents = self._weights[self._done, :used] @ self._terms[:used].flatten(1)
        self._done += 1
        return latents.view_as(self._terms[0])
