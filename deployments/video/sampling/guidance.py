"""Classifier-free guidance (Ho and Salimans 2022)."""

from dataclasses import dataclass
from typing import Literal, Protocol

import torch

Branch = Literal[0, 1]
"""One of a step's forward passes: 0 with the prompt (or both in one batch), 1 without it."""


class Predictor(Protocol):
    """Predicts the velocity of one step's latents."""

    def predict(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Return the velocity ``[n, ...]`` for embeddings ``[n, ...]``, by one forward pass."""

    def predict_both(self, positive: torch.Tensor, negative: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the velocities with and without the prompt, by a forward pass each."""


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

    def velocity(self, predictor: Predictor) -> torch.Tensor:
        """Return the guided velocity, which takes one prediction or two."""
        if self.negative is None:
            return predictor.predict(self.positive)
        if self.batched:
            with_prompt, without = predictor.predict(torch.cat([self.positive, self.negative])).chunk(2)
        else:
            with_prompt, without = predictor.predict_both(self.positive, self.negative)
        return without + self.scale * (with_prompt - without)
