"""The denoise loop, in which a step runs the transformer, applies guidance and calls the solver.

Its result is that of diffusers' loop, which stops the CPU several times per step (the scheduler
solves on the CPU, the boundary is compared on the GPU), so that kernels are launched late. Here the
CPU runs one forward pass ahead of the GPU, while progress and cancelling follow the steps that the
GPU has finished.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from deployments.video.parallel.threads import DeviceThreads
from deployments.video.sampling.conditions import Conditions
from deployments.video.sampling.guidance import Branch, Guidance
from deployments.video.sampling.pace import Pace
from deployments.video.sampling.solver import Solver


@dataclass(frozen=True)
class Seat:
    """A device's part in a forward pass."""

    number: int
    """The number of the device among those of the replica."""
    transformer: Any
    """What is called there."""


class Transformers(Protocol):
    """Selects the transformer for each forward pass."""

    @property
    def devices(self) -> Sequence[torch.device]:
        """The devices that run forward passes; a seat has the number of one of them."""

    def phase(self, timestep: float) -> Hashable:
        """Return a value that differs where other models run."""

    def select(self, timestep: float, branch: Branch, *, alone: bool) -> Sequence[Seat]:
        """Return the devices that together run the pass for ``timestep``, 1000 to 0.

        Each one's transformer is ready to be called on its device; the first one's result is that
        of the pass. ``alone`` says that the step has no other pass.
        """


VelocitySource = Callable[[torch.Tensor, Hashable, Callable[[], torch.Tensor]], torch.Tensor]
"""Returns the velocity of a step's latents, or computes it with its last argument. The second one
differs between steps that run other models or another guidance."""


@torch.no_grad()
def denoise(
    *,
    transformers: Transformers,
    solver: Solver,
    conditions: Conditions,
    guidance: Guidance,
    report: Callable[[int], None],
    velocity: VelocitySource | None = None,
) -> torch.Tensor:
    """Return denoised latents, float32 ``[1, 16, t, h, w]``, on the device of the conditions.

    ``report`` is called with the number of finished steps; it may raise, which ends the loop.
    ``velocity`` may take a step's velocity from elsewhere; by default all are computed.
    """
    begin = conditions.noise if conditions.source is None else solver.add_noise(conditions.source, conditions.noise)
    latents = solver.start(begin)
    timesteps = torch.tensor(solver.timesteps).to(latents.device)
    pace = Pace(latents.device, report)
    guided = guidance.guided_steps(len(solver.timesteps))
    with DeviceThreads(transformers.devices) as threads:
        for index, timestep in enumerate(solver.timesteps):
            step = _Step(
                transformers=transformers,
                conditions=conditions,
                guidance=guidance,
                guided=index < guided,
                pace=pace,
                threads=threads,
                timestep=timestep,
                timestep_tensor=timesteps[index],
                latents=latents,
            )
            phase = (step.guided, transformers.phase(timestep))
            latents = solver.step(step.velocity() if velocity is None else velocity(latents, phase, step.velocity))
            pace.finish_step()
    pace.finish()
    return latents


@dataclass(frozen=True, kw_only=True)
class _Step:
    """One step's forward passes, each on the devices of its transformers."""

    transformers: Transformers
    conditions: Conditions
    guidance: Guidance
    guided: bool
    pace: Pace
    threads: DeviceThreads
    timestep: float
    timestep_tensor: torch.Tensor
    """The timestep on the device of the latents, so that no pass has to copy it from the CPU."""
    latents: torch.Tensor

    def velocity(self) -> torch.Tensor:
        """Run the passes that guidance takes, and return the velocity that they make together.

        They run at the same time if no device takes part in both.
        """
        branches: tuple[Branch, ...] = (0, 1)
        embeddings = self.guidance.passes(guided=self.guided)
        alone = len(embeddings) == 1
        # A copy between devices waits for the work of both, so all inputs are copied first.
        passes = [self._prepare(each, branch, alone=alone) for each, branch in zip(embeddings, branches, strict=False)]
        apart = sum(map(len, passes)) == len({number for forward in passes for number in forward})
        velocities: list[torch.Tensor] = []
        for together in [passes] if apart else [[forward] for forward in passes]:
            calls = {number: call for forward in together for number, call in forward.items()}
            # With several, one thread would fill the queue of one GPU before it came to the next.
            results = self.threads.run(calls) if calls.keys() != {0} else {0: calls[0]()}
            firsts = [next(iter(forward)) for forward in together]
            self.pace.launch(*(calls[number].device for number in firsts))
            velocities += [results[number].to(self.latents.device) for number in firsts]
        return self.guidance.combine(velocities)

    def _prepare(self, embeddings: torch.Tensor, branch: Branch, *, alone: bool) -> "dict[int, _Call]":
        """Return a pass: the call of each device by its number, with the inputs on the device."""
        seats = self.transformers.select(self.timestep, branch, alone=alone)
        return {seat.number: self._prepare_call(seat.transformer, embeddings) for seat in seats}

    def _prepare_call(self, transformer: Any, embeddings: torch.Tensor) -> "_Call":
        channels = self.conditions.channels
        count, device, dtype = len(embeddings), transformer.device, transformer.dtype
        inputs = self.latents if channels is None else torch.cat([self.latents, channels], dim=1)
        return _Call(
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
class _Call:
    """A call of a transformer, which may be made in any thread."""

    transformer: Any
    device: torch.device
    inputs: dict[str, torch.Tensor]

    def __call__(self) -> torch.Tensor:
        # Triton kernels go to the current device, which two experts on two devices differ in.
        with torch.cuda.device_of(self.inputs["hidden_states"]):  # type: ignore[no-untyped-call]
            predicted = self.transformer(**self.inputs, return_dict=False)[0]
        assert isinstance(predicted, torch.Tensor)
        return predicted


def _repeat(tensor: torch.Tensor, count: int) -> torch.Tensor:
    """Return ``tensor`` for ``count`` samples of a batch; it may have several rows for each."""
    if len(tensor) == 1:
        return tensor.expand(count, *tensor.shape[1:])
    return tensor.repeat(count, *(1 for _ in tensor.shape[1:]))
