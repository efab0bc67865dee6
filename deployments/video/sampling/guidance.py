"""Classifier-free guidance (Ho and Salimans 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch

Branch = Literal[0, 1]
"""One of a step's forward passes: 0 with the prompt (or both in one batch), 1 without it."""


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """The embeddings of a request, and how strongly the prompt guides the video."""

    positive: torch.Tensor
    """The prompt's embedding ``[1, tokens, width]``."""
    negative: torch.Tensor | None
    """The negative prompt's embedding. None turns guidance off: a step is then one forward pass."""
    scale: float
    batched: bool = False
    """Whether both passes run as one of batch 2, which rounds differently."""
    until: float = 1.0
    """The share of the steps that are guided, the first ones; the others are one forward pass."""

    def guided_steps(self, steps: int) -> int:
        """Return how many of ``steps`` are guided."""
        return 0 if self.negative is None else guided_steps(self.until, steps)

    def passes(self, *, guided: bool) -> tuple[torch.Tensor, ...]:
        """Return the embeddings ``[n, tokens, width]`` of each forward pass of a step.

        A ``guided`` step has one with the prompt and one with the negative prompt, or one with both
        in a batch; any other step has only the one with the prompt.
        """
        if self.negative is None or not guided:
            return (self.positive,)
        if self.batched:
            return (torch.cat([self.positive, self.negative]),)
        return self.positive, self.negative

    def combine(self, velocities: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return a step's velocity from those ``[n, ...]`` that its ``passes`` have predicted."""
        with_prompt, *others = [velocity for batch in velocities for velocity in batch.chunk(len(batch))]
        if not others:
            return with_prompt
        (without,) = others
        return without + self.scale * (with_prompt - without)


def guided_steps(until: float, steps: int) -> int:
    """Return how many of ``steps`` are guided if the share ``until`` of them is, rounded up."""
    return ceil(round(until * steps, 6))  # 0.07 * 100 is over 7
