"""The table of a scheduler gives what the scheduler gives."""

from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from deployments.video.sampling.solver import Solver

FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SCHEDULERS: dict[str, Any] = {
    "UniPC, shift 3": UniPCMultistepScheduler(**FLOW, flow_shift=3.0),
    "UniPC, shift 8": UniPCMultistepScheduler(**FLOW, flow_shift=8.0),
    "UniPC of order 3": UniPCMultistepScheduler(**FLOW, flow_shift=5.0, solver_order=3),
    "Euler": FlowMatchEulerDiscreteScheduler(shift=5.0),
}


def velocity(latents: torch.Tensor, timestep: torch.Tensor | float) -> torch.Tensor:
    """Something not linear that leads from noise to an image."""
    return torch.tanh(2 * latents) + 0.3 * latents.roll(1, -1) - float(timestep) / 1000


@pytest.mark.parametrize("steps", [1, 2, 3, 12, 50])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_it_runs_as_its_scheduler_does(name: str, steps: int) -> None:
    scheduler = SCHEDULERS[name]
    noise = torch.randn(1, 4, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    scheduler.set_timesteps(steps)
    theirs = noise.double()
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(velocity(theirs, timestep), timestep, theirs, return_dict=False)[0]
    solver = Solver(scheduler, steps)
    ours = solver.start(noise)
    for told in solver.timesteps:
        ours = solver.step(velocity(ours, told))
    assert solver.timesteps == scheduler.timesteps.tolist()
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)


def test_one_request_does_not_see_anothers_steps() -> None:
    scheduler = SCHEDULERS["UniPC, shift 3"]
    noise = torch.randn(1, 4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    alone, one, other = (Solver(scheduler, 3) for _ in range(3))
    expected = latents = alone.start(noise)
    for told in alone.timesteps:
        expected = alone.step(velocity(expected, told))
    latents, disturbing = one.start(noise), other.start(-noise)
    for told in one.timesteps:
        disturbing = other.step(velocity(disturbing, told))
        latents = one.step(velocity(latents, told))
    assert torch.equal(latents, expected)
