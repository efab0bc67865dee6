"""Matrix products of a transformer's blocks in 8-bit floating point (e4m3).

Both factors are scaled by row, and sums are in float32. The weights are quantised again for every
product: that reads and writes them once more, which takes a few per cent of the product's time for
the thousands of tokens of a video, and no memory.
"""

import copy
from collections.abc import Callable, Hashable
from types import ModuleType
from typing import Any

import torch
from torch import nn

from deployments.video.kernels.layers import with_layers
from deployments.video.sampling.guidance import Branch
from deployments.wire import VideoRequest

CAPABILITY = (8, 9)
"""The least CUDA compute capability with fp8 products: Ada (L4, L40S) and Hopper, not the A100."""
LEAST_WIDTH = 4096
"""The least width of a transformer for which fp8 is offered.

On Wan 1.3B (width 1536) it gains less than the step cache and loses more, on A14B (5120) it pays.
"""


class Fp8:
    """The views of one request.

    ``operations``, the module ``kernels.reference`` or ``kernels.fused``, quantises.
    """

    def __init__(self, operations: ModuleType) -> None:
        self._operations = operations
        self._views: dict[int, Any] = {}

    def view(self, transformer: Any, branch: Branch) -> Any:
        """Return what to call instead of ``transformer``; both branches share it."""
        if id(transformer) not in self._views:
            self._views[id(transformer)] = _fp8_view(transformer, self._operations)
        return self._views[id(transformer)]

    def velocity(self, latents: torch.Tensor, phase: Hashable, compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what ``compute`` returns: every step is computed."""
        return compute()

    def describe(self) -> str:
        """Return `fp8`."""
        return "fp8"


def has_plain_layers(transformer: Any) -> bool:
    """Return whether any linear layer of the blocks can compute in fp8."""
    return any(_is_convertible(module) for module in transformer.blocks.modules())


def pays(config: Any) -> bool:
    """Return whether fp8 is worth its loss for the transformer of ``config``."""
    width: int = config.num_attention_heads * config.attention_head_dim
    return width >= LEAST_WIDTH


def fp8_bytes(config: Any, request: VideoRequest) -> int:
    """Return an upper bound of the bytes that fp8 needs beside an exact video.

    They hold the quantised input and weight of a feed-forward layer. ``config`` is the
    transformer's.
    """
    tokens = (1 + (request.num_frames - 1) // 4) * request.width * request.height // 256
    hidden: int = config.num_attention_heads * config.attention_head_dim
    return (2 * tokens + hidden) * int(config.ffn_dim)


def _fp8_view(transformer: Any, operations: ModuleType) -> Any:
    view = copy.copy(transformer)
    view._modules = dict(transformer._modules)
    for name in ("blocks", "vace_blocks"):
        if name in view._modules:
            view._modules[name] = with_layers(
                view._modules[name], lambda layer: Fp8Linear(layer, operations) if _is_convertible(layer) else None
            )
    return view


def _is_convertible(module: nn.Module) -> bool:
    # GPUs need multiples of 16. Quantised layers have another type.
    return type(module) is nn.Linear and not any(side % 16 for side in module.weight.shape)


class Fp8Linear(nn.Module):
    """A linear layer that quantises its input and its weight in each call."""

    def __init__(self, linear: Any, operations: ModuleType) -> None:
        super().__init__()
        self.linear = linear
        self._operations = operations

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[..., in]`` to ``[..., out]``, in the dtype of ``x``."""
        rows, scales = self._operations.quantise_rows(x.flatten(0, -2).contiguous())
        weight, weight_scales = self._operations.quantise_rows(self.linear.weight)
        product: torch.Tensor = torch._scaled_mm(
            rows,
            weight.T,
            scale_a=scales,
            scale_b=weight_scales.T,
            bias=self.linear.bias,
            out_dtype=x.dtype,
            use_fast_accum=True,
        )
        return product.view(*x.shape[:-1], -1)
