"""A solver's table of weights gives what the scheduler itself gives, step by step."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from deployments.video.sampling.solver import Solver


class Scheduler:
    """Adams and Bashforth's method of the second order, after a first step of Euler's.

    As diffusers' schedulers do, it keeps the velocity of the step before.
    """

    def __init__(self, shift: float) -> None:
        self.config = SimpleNamespace(shift=shift)
        self.before: torch.Tensor | None = None

    @classmethod
    def from_config(cls, config: Any) -> "Scheduler":
        """Return a scheduler in its first state."""
        return cls(config.shift)

    def set_timesteps(self, steps: int) -> None:
        """Choose the times of the steps."""
        times = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
        self.sigmas = self.config.shift * times / (1 + (self.config.shift - 1) * times)
        self.timesteps = 1000 * self.sigmas[:-1]

    def set_begin_index(self, index: int) -> None:
        """Begin with the first step."""
        self.index = index

    def add_noise(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """Return latents with the noise of the step that the scheduler has come to."""
        sigma: torch.Tensor = self.sigmas[self.index]
        return (1 - sigma) * latents + sigma * noise

    def step(
        self, velocity: torch.Tensor, timestep: torch.Tensor, sample: torch.Tensor, *, return_dict: bool
    ) -> tuple[torch.Tensor]:
        """Return the next sample."""
        assert timestep == self.timesteps[self.index]
        slope = velocity if self.before is None else 1.5 * velocity - 0.5 * self.before
        self.before = velocity
        self.index += 1
        return (sample + slope * (self.sigmas[self.index] - self.sigmas[self.index - 1]),)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_each_step_gives_what_the_scheduler_gives(steps: int) -> None:
    noise = torch.randn(1, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    scheduler = Scheduler(shift=3)
    scheduler.set_timesteps(steps)
    scheduler.set_begin_index(0)
    solver = Solver(Scheduler(shift=3), steps)
    assert solver.timesteps == scheduler.timesteps.tolist()
    expected, latents = noise.double(), solver.start(noise)
    torch.testing.assert_close(latents, noise)
    for timestep in scheduler.timesteps:
        velocity = torch.sin(latents + timestep)
        (expected,) = scheduler.step(velocity.double(), timestep, expected, return_dict=False)
        latents = solver.step(velocity)
        assert (latents.shape, latents.dtype) == (noise.shape, torch.float32)
        torch.testing.assert_close(latents, expected.float(), atol=1e-5, rtol=1e-5)


def test_a_run_begins_anew_and_leaves_the_given_scheduler_alone() -> None:
    scheduler = Scheduler(shift=1)
    scheduler.before = torch.ones(1)
    solver = Solver(scheduler, 2)
    runs = []
    for _ in range(2):
        latents = solver.start(torch.ones(2))
        runs.append([latents := solver.step(latents) for _ in range(2)])
    torch.testing.assert_close(runs[0], runs[1])
    # Euler: 1 - 0.5 * 1; then Adams and Bashforth: 0.5 - 0.5 * (1.5 * 0.5 - 0.5 * 1).
    torch.testing.assert_close(torch.stack(runs[0])[:, 0], torch.tensor([0.5, 0.375]))
    assert not hasattr(scheduler, "timesteps")


def test_a_step_before_the_start_is_an_error_of_the_caller() -> None:
    with pytest.raises(AssertionError, match="call start first"):
        Solver(Scheduler(shift=1), 2).step(torch.ones(1))


@pytest.mark.parametrize("count", [1, 2, 6])
def test_the_last_steps_begin_at_a_video_with_the_noise_of_the_first_of_them(count: int) -> None:
    generator = torch.Generator().manual_seed(2)
    video, noise = (torch.randn(1, 2, 3, 4, 5, generator=generator) for _ in range(2))
    solver = Solver(Scheduler(shift=3), 6, count)
    assert solver.timesteps == Solver(Scheduler(shift=3), 6).timesteps[-count:]
    sigma = solver.timesteps[0] / 1000
    latents = solver.start(solver.add_noise(video, noise).float())
    torch.testing.assert_close(latents, (1 - sigma) * video + sigma * noise)
    for _ in solver.timesteps:
        latents = solver.step(noise - video)  # what leads straight to the video
    torch.testing.assert_close(latents, video, atol=1e-5, rtol=1e-5)
