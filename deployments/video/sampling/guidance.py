"""Classifier-free guidance (Ho and Salimans 2022)."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal, Protocol

import torch

Branch = Literal[0, 1]
"""One of a step's forward passes: 0 with the prompt (or both in one batch), 1 without it."""


class Predictor(Protocol):
    """Predicts the velocity of one step's latents."""

    def predict(self, *embeddings: torch.Tensor) -> Sequence[torch.Tensor]:
        """Return the velocity ``[n, ...]`` for each of ``embeddings`` ``[n, ...]``.

        Each takes one forward pass: the first with the prompt (or both in one batch), the second
        without it.
        """


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

    def velocity(self, predictor: Predictor, *, guided: bool = True) -> torch.Tensor:
        """Return the velocity, ``guided`` or not; with guidance it takes one prediction or two."""
        if self.negative is None or not guided:
            return predictor.predict(self.positive)[0]
        if self.batched:
            with_prompt, without = predictor.predict(torch.cat([self.positive, self.negative]))[0].chunk(2)
        else:
            with_prompt, without = predictor.predict(self.positive, self.negative)
        return without + self.scale * (with_prompt - without)


def guided_steps(until: float, steps: int) -> int:
    """Return how many of ``steps`` are guided if the share ``until`` of them is, rounded up."""
    return ceil(round(until * steps, 6))  # 0.07 * 100 is over 7
