"""The denoise loop: transformer, guidance, solver. Diffusers' loop with the same result, but nothing in a step waits for the GPU.

A pipeline's own loop stops the CPU several times a step (the scheduler solves on the CPU, the boundary is compared on the GPU), so
kernels are launched late. Here the CPU runs one step ahead, and progress and cancelling follow the steps that the GPU has done.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch

from deployments.video.sampling.conditions import Conditions
from deployments.video.sampling.solver import Solver


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
    transformer_at: Callable[[float, int], Any],
    solver: Solver,
    conditions: Conditions,
    guidance: Guidance,
    report: Callable[[int], None],
    shortcut: Shortcut | None = None,
    ahead: int = 1,
) -> torch.Tensor:
    """Denoised latents, float32 ``[1, 16, t, h, w]``, on the device of the conditions.

    ``transformer_at`` chooses the transformer for a timestep, 1000 to 0, and for one of a step's passes; it may be on any device.
    ``report`` is told how many steps are done and may raise. ``shortcut``: what to run in a transformer's place, which is not exact.
    ``ahead``: passes that are launched before an older one is waited for: as many as there are devices.
    """
    latents = solver.start(conditions.noise)
    timesteps = torch.tensor(solver.timesteps).to(latents.device)
    pace = _Pace(latents.device, report, ahead)
    for step, told in enumerate(solver.timesteps):
        predictor = _Predictor(partial(transformer_at, told), conditions, latents, timesteps[step], pace.forward, shortcut)
        latents = solver.step(guidance.velocity(predictor))
        pace.step()
    pace.end()
    return latents


@dataclass(frozen=True)
class _Predictor:
    """One step's forward passes, each on the device of its transformer."""

    transformer_at: Callable[[int], Any]
    conditions: Conditions
    latents: torch.Tensor
    timestep: torch.Tensor
    launched: Callable[[], None]
    shortcut: Shortcut | None

    def __call__(self, embeddings: torch.Tensor, branch: int) -> torch.Tensor:
        chosen, channels = self.transformer_at(branch), self.conditions.channels
        count, device, dtype = len(embeddings), chosen.device, chosen.dtype
        seen = self.latents if channels is None else torch.cat([self.latents, channels], dim=1)
        transformer = chosen if self.shortcut is None else self.shortcut.view(chosen, branch)
        with torch.cuda.device_of(self.timestep.to(device)):  # type: ignore[no-untyped-call]  # where our kernels and events go
            predicted = transformer(
                hidden_states=_repeat(seen.to(device, dtype), count),
                timestep=self.timestep.to(device).expand(count),
                encoder_hidden_states=embeddings.to(device, dtype),
                return_dict=False,
                **{name: _repeat(value.to(device), count) for name, value in self.conditions.arguments.items()},
            )[0]
            self.launched()
        assert isinstance(predicted, torch.Tensor)
        return predicted.to(self.latents.device)


def _repeat(tensor: torch.Tensor, count: int) -> torch.Tensor:
    return tensor if count == 1 else tensor.expand(count, *tensor.shape[1:])


@dataclass
class _Pass:
    """A forward pass under way on a GPU; ``steps``: how many are done when it is."""

    event: Any
    steps: int


class _Pace:
    """Reports steps as the GPU does them: the CPU is ``ahead`` passes ahead, so that the GPU never waits, and a cancel not for long."""

    def __init__(self, device: torch.device, report: Callable[[int], None], ahead: int) -> None:
        self._cuda = device.type == "cuda"
        self._report = report
        self._ahead = ahead
        self._under_way: deque[_Pass] = deque()
        self._steps = 0

    def forward(self) -> None:
        """A forward pass is launched (CUDA) or done. ``report`` is told again how many steps are done: it may raise at any time."""
        if not self._cuda:
            return
        event = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
        event.record()
        self._under_way.append(_Pass(event, self._steps))
        if len(self._under_way) > self._ahead:
            self._wait()

    def step(self) -> None:
        """A step is launched or done: as far as the pass before its last, on a GPU."""
        self._steps += 1
        if self._cuda:
            self._under_way[-1].steps = self._steps
        else:
            self._report(self._steps)

    def end(self) -> None:
        """Waits for the GPU."""
        while self._under_way:
            self._wait()

    def _wait(self) -> None:
        oldest = self._under_way.popleft()
        oldest.event.synchronize()
        self._report(oldest.steps)
