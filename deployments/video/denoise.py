"""The denoise loop: transformer, guidance, solver. Diffusers' loop with the same result, but nothing in a step waits for the GPU.

A pipeline's own loop stops the CPU several times a step (the scheduler solves on the CPU, the boundary is compared on the GPU), so
kernels are launched late. Here the CPU runs one step ahead, and progress and cancelling follow the steps that the GPU has done.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from deployments.video.conditions import Conditions
from deployments.video.solver import Solver


class Shortcut(Protocol):
    """What makes the denoising of one request faster, and not exact. As text: what was done, for `X-Acceleration`."""

    def view(self, transformer: Any, branch: int) -> Any:
        """What to call in place of ``transformer``; ``branch``: which of a step's passes it is (with the prompt, without)."""


@dataclass(frozen=True)
class Guidance:
    """Classifier-free guidance (Ho and Salimans 2022). ``negative`` None: none, one forward a step.

    ``batched``: both forwards in one of batch 2. Results differ in rounding, so a deployment does always the one or the other.
    """

    positive: torch.Tensor
    negative: torch.Tensor | None
    scale: float
    batched: bool = False

    def velocity(self, predict: Callable[[torch.Tensor, int], torch.Tensor]) -> torch.Tensor:
        """The guided prediction; ``predict`` takes embeddings ``[n, ...]``, and which of a step's passes it is, and gives ``[n, ...]``."""
        if self.negative is None:
            return predict(self.positive, 0)
        if self.batched:
            with_prompt, without = predict(torch.cat([self.positive, self.negative]), 0).chunk(2)
        else:
            with_prompt, without = predict(self.positive, 0), predict(self.negative, 1)
        return without + self.scale * (with_prompt - without)


@torch.no_grad()
def denoise(
    transformer_at: Callable[[float], Any],
    solver: Solver,
    conditions: Conditions,
    guidance: Guidance,
    report: Callable[[int], None],
    shortcut: Shortcut | None = None,
) -> torch.Tensor:
    """Denoised latents, float32 ``[1, 16, t, h, w]``.

    ``transformer_at`` chooses the transformer for a timestep, 1000 to 0; ``report`` is told how many steps are done and may raise.
    ``shortcut``: what to run in a transformer's place, which is not exact.
    """
    latents = solver.start(conditions.noise)
    timesteps = torch.tensor(solver.timesteps).to(latents.device)
    pace = _Pace(latents.device, report)
    for step, told in enumerate(solver.timesteps):
        transformer = transformer_at(told)
        predictor = _Predictor(transformer, conditions, latents, timesteps[step], pace.forward, shortcut)
        latents = solver.step(guidance.velocity(predictor))
        pace.step()
    pace.end()
    return latents


@dataclass(frozen=True)
class _Predictor:
    """One step's forward pass."""

    transformer: Any
    conditions: Conditions
    latents: torch.Tensor
    timestep: torch.Tensor
    launched: Callable[[], None]
    shortcut: Shortcut | None

    def __call__(self, embeddings: torch.Tensor, branch: int) -> torch.Tensor:
        count, dtype = len(embeddings), self.transformer.dtype
        channels = self.conditions.channels
        seen = self.latents if channels is None else torch.cat([self.latents, channels], dim=1)
        transformer = self.transformer if self.shortcut is None else self.shortcut.view(self.transformer, branch)
        predicted = transformer(
            hidden_states=_repeat(seen.to(dtype), count),
            timestep=self.timestep.expand(count),
            encoder_hidden_states=embeddings.to(dtype),
            return_dict=False,
            **{name: _repeat(value, count) for name, value in self.conditions.arguments.items()},
        )[0]
        assert isinstance(predicted, torch.Tensor)
        self.launched()
        return predicted


def _repeat(tensor: torch.Tensor, count: int) -> torch.Tensor:
    return tensor if count == 1 else tensor.expand(count, *tensor.shape[1:])


class _Pace:
    """Reports steps as the GPU does them, which the CPU is one forward pass ahead of: so the GPU never waits, and a cancel not for long."""

    def __init__(self, device: torch.device, report: Callable[[int], None]) -> None:
        self._cuda = device.type == "cuda"
        self._report = report
        self._event: Any = None
        self._steps = 0

    def forward(self) -> None:
        """A forward pass is launched (CUDA) or done. ``report`` is told again how many steps are done: it may raise at any time."""
        if not self._cuda:
            return
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        before, self._event = self._event, event
        if before is not None:
            before.synchronize()
            self._report(self._steps)

    def step(self) -> None:
        """A step is launched or done: as far as the pass before its last, on a GPU."""
        self._steps += 1
        if not self._cuda:
            self._report(self._steps)

    def end(self) -> None:
        """Waits for the GPU."""
        if self._event is not None:
            self._event.synchronize()
            self._report(self._steps)
