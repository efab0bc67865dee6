"""A solver gives the results of the scheduler that it was made from."""

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
    """Return a nonlinear function of the latents and the timestep."""
    return torch.tanh(2 * latents) + 0.3 * latents.roll(1, -1) - float(timestep) / 1000


@pytest.mark.parametrize("steps", [1, 2, 3, 12, 50])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_a_solver_equals_its_scheduler(name: str, steps: int) -> None:
    scheduler = SCHEDULERS[name]
    noise = torch.randn(1, 4, 2, 6, 6, generator=torch.Generator().manual_seed(1))
    scheduler.set_timesteps(steps)
    theirs = noise.double()
    for timestep in scheduler.timesteps:
        theirs = scheduler.step(velocity(theirs, timestep), timestep, theirs, return_dict=False)[0]
    solver = Solver(scheduler, steps)
    ours = solver.start(noise)
    for timestep in solver.timesteps:
        ours = solver.step(velocity(ours, timestep))
    assert solver.timesteps == scheduler.timesteps.tolist()
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs.float(), rtol=1e-5, atol=1e-5)


def test_solvers_of_one_scheduler_are_independent() -> None:
    scheduler = SCHEDULERS["UniPC, shift 3"]
    noise = torch.randn(1, 4, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    alone, one, other = (Solver(scheduler, 3) for _ in range(3))
    expected = latents = alone.start(noise)
    for timestep in alone.timesteps:
        expected = alone.step(velocity(expected, timestep))
    latents, disturbing = one.start(noise), other.start(-noise)
    for timestep in one.timesteps:
        disturbing = other.step(velocity(disturbing, timestep))
        latents = one.step(velocity(latents, timestep))
    assert torch.equal(latents, expected)
