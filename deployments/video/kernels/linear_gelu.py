"""A linear layer with its activation."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers.models.activations import GELU
from torch import nn


class LinearGelu(nn.Module):
    """Diffusers' ``GELU`` (a linear layer and its tanh-approximated activation) as one kernel.

    On a GPU, cuBLAS computes the activation as the epilogue of the matrix product. The layer must
    be a plain ``nn.Linear``.
    """

    def __init__(self, gelu: GELU) -> None:
        super().__init__()
        self.proj = gelu.proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[n, tokens, width]`` to ``[n, tokens, features]``."""
        rows: torch.Tensor = torch._addmm_activation(self.proj.bias, x.flatten(0, 1), self.proj.weight.T, use_gelu=True)
        return rows.view(*x.shape[:2], -1)


class LinearThenGelu(nn.Module):
    """The same in two kernels, for any linear layer."""

    def __init__(self, proj: Any) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[..., width]`` to ``[..., features]``."""
        return F.gelu(self.proj(x), approximate="tanh")
