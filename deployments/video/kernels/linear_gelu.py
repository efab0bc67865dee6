"""A linear layer with its activation."""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers.models.activations import GELU
from torch import nn

from deployments.video.kernels.lora_linear import LoraLinear


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
        return _linear_gelu(x, self.proj.weight, self.proj.bias)


class LinearThenGelu(nn.Module):
    """The same in two kernels, for any linear layer.

    A LoRA that merges its weight for the call is a plain layer then, and takes one kernel.
    """

    def __init__(self, proj: Any) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[..., width]`` to ``[..., features]``."""
        weight = self.proj.merged_weight(x) if isinstance(self.proj, LoraLinear) else None
        if weight is not None:
            return _linear_gelu(x, weight, self.proj.linear.bias)
        return F.gelu(self.proj(x), approximate="tanh")


def _linear_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    rows: torch.Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.T, use_gelu=True)
    return rows.view(*x.shape[:-1], -1)
