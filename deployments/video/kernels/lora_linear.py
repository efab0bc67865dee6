"""A linear layer with the change of a LoRA."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn


class LoraLinear(nn.Module):
    """A linear layer with a change that is added to its output.

    ``down`` is ``[rank, in]`` and ``up`` is ``[out, rank]``, and their product counts ``factor``
    times; without ``up``, ``down`` is ``[out, in]``.

    On a GPU, a layer that gets many rows adds the product to a copy of its weight instead, which is
    gone after the call: that moves fewer bytes than reading and writing all rows again. The sum is
    rounded once to the weight's dtype, as in a merged LoRA.
    """

    def __init__(self, linear: Any, down: torch.Tensor, up: torch.Tensor | None, factor: float = 1.0) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = None if up is None else nn.Parameter(up, requires_grad=False)
        self.factor = factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        weight = self.merged_weight(x)
        if weight is not None:
            return F.linear(x, weight, self.linear.bias)
        result: torch.Tensor = self.linear(x)
        narrow = F.linear(x, self.down)
        if self.up is None:
            return result.add_(narrow)
        result.view(-1, result.shape[-1]).addmm_(narrow.flatten(0, -2), self.up.T, alpha=self.factor)
        return result

    def merged_weight(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return the weight with the change, or None where adding to the output of ``x`` is better.

        That is so on a CPU, for few rows, and where the weight is not plain.
        """
        if self.up is None or not x.is_cuda or type(self.linear) is not nn.Linear:
            return None
        if not saves_bytes(x.numel() // x.shape[-1], self.linear.in_features, self.linear.out_features):
            return None
        return torch.addmm(self.linear.weight, self.up, self.down, alpha=self.factor)


def saves_bytes(rows: int, width: int, features: int) -> bool:
    """Return whether reading and writing the weight moves fewer bytes than adding to the output.

    Adding reads the ``rows`` of the input again, and reads and writes those of the output.
    """
    return 2 * features * width < rows * (width + 2 * features)
