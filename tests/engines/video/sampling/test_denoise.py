"""The denoise loop with a transformer that is a function over small tensors."""

import threading
from typing import Any

import pytest
import torch
from diffusers import UniPCMultistepScheduler

from deployments.errors import Cancelled
from deployments.video.sampling.conditions import Conditions
from deployments.video.sampling.denoise import Seat, denoise
from deployments.video.sampling.guidance import Branch, Guidance
from deployments.video.sampling.solver import Solver

STEPS = 4
NOISE = torch.randn((1, 4, 2, 3, 3), generator=torch.Generator().manual_seed(1))
PROMPT, NEGATIVE = torch.full((1, 5, 2), 0.5), torch.full((1, 5, 2), -0.25)


class FakeTransformer:
    """Returns a function of the latents, the timestep and the prompt, and records its inputs."""

    device = torch.device("cpu")
    dtype = torch.float32

    def __init__(self) -> None:
        self.inputs: list[dict[str, Any]] = []

    def __call__(self, *, return_dict: bool, **inputs: Any) -> tuple[torch.Tensor]:
        assert not return_dict
        self.inputs.append(inputs)
        latents = inputs["hidden_states"][:, :4]
        prompts = inputs["encoder_hidden_states"].mean((1, 2)).view(-1, 1, 1, 1, 1)
        return (torch.tanh(2 * latents) + prompts - inputs["timestep"].view(-1, 1, 1, 1, 1) / 1000,)


class FakeTransformers:
    """Selects always the same transformer, and records what it is selected for."""

    def __init__(self) -> None:
        self.transformer = FakeTransformer()
        self.selected: list[tuple[float, Branch]] = []
        self.alone: list[bool] = []
        self.devices = [torch.device("cpu")]

    def phase(self, timestep: float) -> str:
        return "early" if timestep > 900 else "late"

    def select(self, timestep: float, branch: Branch, *, alone: bool) -> list[Seat]:
        self.selected.append((timestep, branch))
        self.alone.append(alone)
        return [Seat(0, self.transformer)]


def scheduler() -> Any:
    return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)


def run(transformers: FakeTransformers, guidance: Guidance, conditions: Conditions | None = None) -> torch.Tensor:
    return denoise(
        transformers=transformers,
        solver=Solver(scheduler(), STEPS),
        conditions=conditions or Conditions(NOISE),
        guidance=guidance,
        report=lambda _: None,
    )


def test_the_loop_equals_diffusers_loop() -> None:
    theirs, steps = FakeTransformer(), scheduler()
    steps.set_timesteps(STEPS)
    latents = NOISE
    for timestep in steps.timesteps:
        with_prompt, without = (
            theirs(hidden_states=latents, timestep=timestep.expand(1), encoder_hidden_states=embeddings, return_dict=False)[0]
            for embeddings in (PROMPT, NEGATIVE)
        )
        velocity = without + 3.0 * (with_prompt - without)
        latents = steps.step(velocity, timestep, latents, return_dict=False)[0]
    ours = run(FakeTransformers(), Guidance(positive=PROMPT, negative=NEGATIVE, scale=3.0))
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours, latents, rtol=1e-5, atol=1e-5)


def test_a_transformer_is_selected_for_each_timestep_and_pass() -> None:
    transformers = FakeTransformers()
    run(transformers, Guidance(positive=PROMPT, negative=NEGATIVE, scale=3.0))
    timesteps = Solver(scheduler(), STEPS).timesteps
    assert transformers.selected == [(timestep, branch) for timestep in timesteps for branch in (0, 1)]
    passed = [float(inputs["timestep"]) for inputs in transformers.transformer.inputs]
    assert passed == [timestep for timestep in timesteps for _ in range(2)]


def test_the_steps_after_the_share_run_without_the_negative_prompt() -> None:
    transformers = FakeTransformers()
    latents = run(transformers, Guidance(positive=PROMPT, negative=NEGATIVE, scale=3.0, until=0.5))
    assert [branch for _, branch in transformers.selected] == [0, 1, 0, 1, 0, 0]
    assert transformers.alone == [False] * 4 + [True] * 2
    assert not torch.equal(latents, run(FakeTransformers(), Guidance(positive=PROMPT, negative=NEGATIVE, scale=3.0)))


def test_a_velocity_may_come_from_elsewhere() -> None:
    transformers, phases = FakeTransformers(), []

    def velocity(latents: torch.Tensor, phase: Any, compute: Any) -> torch.Tensor:
        phases.append(phase)
        return compute() if len(phases) % 2 else torch.zeros_like(latents)

    reported: list[int] = []
    denoise(
        transformers=transformers,
        solver=Solver(scheduler(), STEPS),
        conditions=Conditions(NOISE),
        guidance=Guidance(positive=PROMPT, negative=NEGATIVE, scale=3.0, until=0.5),
        report=reported.append,
        velocity=velocity,
    )
    early = [timestep > 900 for timestep in Solver(scheduler(), STEPS).timesteps]
    assert phases == [(index < 2, "early" if early[index] else "late") for index in range(STEPS)]
    assert [branch for _, branch in transformers.selected] == [0, 1, 0]
    assert reported == [1, 2, 3, 4]


class TwoDevices:
    """A transformer for each pass, of which neither ends before the other has begun.

    A CPU with a number is to PyTorch another device than one without.
    """

    def __init__(self) -> None:
        both_run = threading.Barrier(2, timeout=60)
        self.gradients: list[bool] = []

        class Waiting(FakeTransformer):
            def __call__(inner, *, return_dict: bool, **inputs: Any) -> tuple[torch.Tensor]:  # noqa: N805
                both_run.wait()
                self.gradients.append(torch.is_grad_enabled())
                return super().__call__(return_dict=return_dict, **inputs)

        self.near: FakeTransformer = Waiting()
        self.far: FakeTransformer = Waiting()
        self.far.device = torch.device("cpu", 0)
        self.devices = [self.near.device, self.far.device]

    def phase(self, timestep: float) -> str:
        return "only"

    def select(self, timestep: float, branch: Branch, *, alone: bool) -> list[Seat]:
        return [Seat(1, self.far) if branch else Seat(0, self.near)]


def test_the_passes_of_two_devices_run_at_the_same_time() -> None:
    devices, guidance = TwoDevices(), Guidance(positive=PROMPT, negative=NEGATIVE, scale=3.0)
    latents = denoise(
        transformers=devices,
        solver=Solver(scheduler(), STEPS),
        conditions=Conditions(NOISE),
        guidance=guidance,
        report=lambda _: None,
    )
    assert torch.equal(latents, run(FakeTransformers(), guidance))
    assert devices.gradients == [False] * 2 * STEPS
    assert [len(transformer.inputs) for transformer in (devices.near, devices.far)] == [STEPS, STEPS]


def test_a_pass_that_fails_waits_for_the_other_device() -> None:
    class Failing(FakeTransformer):
        def __call__(self, *, return_dict: bool, **inputs: Any) -> tuple[torch.Tensor]:
            begun.wait(60)
            raise RuntimeError("out of memory")

    class Slow(FakeTransformer):
        def __call__(self, *, return_dict: bool, **inputs: Any) -> tuple[torch.Tensor]:
            begun.set()
            result = super().__call__(return_dict=return_dict, **inputs)
            ended.set()
            return result

    begun, ended = threading.Event(), threading.Event()
    devices = TwoDevices()
    devices.near, devices.far = Failing(), Slow()
    devices.far.device = torch.device("cpu", 0)
    with pytest.raises(RuntimeError, match="out of memory"):
        denoise(
            transformers=devices,
            solver=Solver(scheduler(), STEPS),
            conditions=Conditions(NOISE),
            guidance=Guidance(positive=PROMPT, negative=NEGATIVE, scale=3.0),
            report=lambda _: None,
        )
    assert ended.is_set()


def test_conditions_are_part_of_every_pass() -> None:
    """With batched guidance, they are repeated for both samples of the batch."""
    transformers = FakeTransformers()
    channels, control = torch.ones(1, 2, *NOISE.shape[2:]), torch.full((1, 3), 2.0)
    conditions = Conditions(NOISE, channels, {"control": control})
    run(transformers, Guidance(positive=PROMPT, negative=NEGATIVE, scale=3.0, batched=True), conditions)
    assert [branch for _, branch in transformers.selected] == [0] * STEPS
    for inputs in transformers.transformer.inputs:
        assert inputs["hidden_states"].shape == (2, 6, *NOISE.shape[2:])
        assert torch.equal(inputs["hidden_states"][:, 4:], channels.expand(2, -1, -1, -1, -1))
        assert torch.equal(inputs["control"], control.expand(2, -1))
        assert torch.equal(inputs["encoder_hidden_states"], torch.cat([PROMPT, NEGATIVE]))
        assert inputs["timestep"].shape == (2,)


def test_finished_steps_are_reported_and_a_cancelled_loop_ends() -> None:
    transformers, finished = FakeTransformers(), list[int]()

    def report(done: int) -> None:
        finished.append(done)
        if done == 2:
            raise Cancelled("the test has seen enough")

    with pytest.raises(Cancelled):
        denoise(
            transformers=transformers,
            solver=Solver(scheduler(), STEPS),
            conditions=Conditions(NOISE),
            guidance=Guidance(positive=PROMPT, negative=None, scale=1.0),
            report=report,
        )
    assert finished == [1, 2]
    assert len(transformers.transformer.inputs) == 2
