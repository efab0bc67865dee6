"""Matrix products of a transformer's blocks in 8-bit floating point: e4m3, both sides scaled by row, sums in float32.

A view over the very weights, which are quantised again for each product: that reads and writes them once more, a few hundredths of the
product's time for a video's thousands of tokens, and takes no memory. Not exact: off unless asked for.
"""

import copy
from types import ModuleType
from typing import Any

import torch
from torch import nn

from deployments.video.kernels.layers import with_layers

CAPABILITY = (8, 9)
"""Cards from this compute capability on have such products: Ada (L4, L40S), Hopper; not the A100."""


class Fp8:
    """One request's views of the transformers that it runs."""

    def __init__(self, operations: ModuleType) -> None:
        self._operations = operations
        self._views: dict[int, Any] = {}

    def view(self, transformer: Any, branch: int) -> Any:
        """See Shortcut. Raises ValueError where no block has a plain linear layer: quantised ones stay as they are."""
        if id(transformer) not in self._views:
            self._views[id(transformer)] = _view(transformer, self._operations)
        return self._views[id(transformer)]

    def __str__(self) -> str:
        return "fp8"


def has_plain_layers(transformer: Any) -> bool:
    """Whether there is anything to compute in fp8."""
    return any(_is_convertible(module) for module in transformer.blocks.modules())


def fp8_bytes(config: Any, width: int, height: int, num_frames: int) -> int:
    """Bytes that a video wants besides, from above: a feed-forward layer's input, and a weight, quantised."""
    tokens = (1 + (num_frames - 1) // 4) * width * height // 256
    hidden: int = config.num_attention_heads * config.attention_head_dim
    return (2 * tokens + hidden) * int(config.ffn_dim)


def _view(transformer: Any, operations: ModuleType) -> Any:
    view = copy.copy(transformer)
    view._modules = dict(transformer._modules)
    for name in ("blocks", "vace_blocks"):
        if name in view._modules:
            view._modules[name] = with_layers(
                view._modules[name], lambda layer: Fp8Linear(layer, operations) if _is_convertible(layer) else None
            )
    return view


def _is_convertible(module: nn.Module) -> bool:
    # The hardware takes multiples of 16; a quantised layer is of another type.
    return type(module) is nn.Linear and not any(side % 16 for side in module.weight.shape)


class Fp8Linear(nn.Module):
    """A linear layer, its input and its weight quantised as it is called."""

    def __init__(self, linear: Any, operations: ModuleType) -> None:
        super().__init__()
        self.linear = linear
        self._operations = operations

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[..., in]`` -> ``[..., out]``, of the type of ``x``."""
        rows, scales = self._operations.quantise_rows(x.flatten(0, -2).contiguous())
        weight, weight_scales = self._operations.quantise_rows(self.linear.weight)
        product: torch.Tensor = torch._scaled_mm(
            *(rows, weight.T, scales, weight_scales.T), bias=self.linear.bias, out_dtype=x.dtype, use_fast_accum=True
        )
        return product.view(*x.shape[:-1], -1)
