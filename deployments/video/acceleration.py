"""What makes the same arithmetic faster on a GPU: compiled blocks, cuDNN's attention, fewer passes over memory.

Nothing here changes what is computed, only how it is rounded; docs/performance.md has both figures.
"""

import logging
import os
from typing import Any

import torch
from diffusers.models.activations import GELU

from deployments.settings import VideoSettings

log = logging.getLogger(__name__)

HOPPER = (9, 0)


def accelerate(transformer: Any, settings: VideoSettings, device: torch.device) -> None:
    """Prepares a transformer on ``device``, in place. A CPU runs it as it is."""
    if device.type != "cuda":
        return
    backend = pick_attention(settings, torch.cuda.get_device_capability(device))
    for block in _blocks(transformer):
        for attention in (block.attn1, block.attn2):
            attention.processor._attention_backend = backend
        first = block.ffn.net[0]
        if type(first) is GELU and type(first.proj) is torch.nn.Linear:  # a quantised layer is no such
            block.ffn.net[0] = LinearGelu(first)
    compiled = settings.compile and not getattr(transformer, "is_quantized", False)
    if compiled:
        if settings.compile_cache is not None:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(settings.compile_cache))
        for block in _blocks(transformer):
            block.compile(dynamic=True)  # one compilation for all sizes
    log.info("attention: %s; blocks compiled: %s", backend, compiled)


def pick_attention(settings: VideoSettings, capability: tuple[int, int]) -> str:
    """Diffusers' name of the attention that runs: cuDNN's from Hopper on (there twice as fast as PyTorch's own), else PyTorch's."""
    if settings.attention == "auto":
        return "_native_cudnn" if capability >= HOPPER else "native"
    return {"cudnn": "_native_cudnn", "native": "native"}[settings.attention]


def _blocks(transformer: Any) -> list[Any]:
    return [*transformer.blocks, *getattr(transformer, "vace_blocks", ())]


class LinearGelu(torch.nn.Module):
    """Diffusers' ``GELU`` (a linear layer and its tanh-approximated activation) as one kernel: cuBLAS has it as an epilogue."""

    def __init__(self, gelu: GELU) -> None:
        super().__init__()
        self.proj = gelu.proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, tokens, width]`` -> ``[n, tokens, features]``."""
        rows: torch.Tensor = linear_gelu(x.flatten(0, 1), self.proj.weight, self.proj.bias)
        return rows.view(*x.shape[:2], -1)


@torch.library.custom_op("ryla::linear_gelu", mutates_args=())
def linear_gelu(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """The activation of ``x @ weight.T + bias``. An operation of its own, since a compiler would take it apart again."""
    result: torch.Tensor = torch._addmm_activation(bias, x, weight.T, use_gelu=True)
    return result


@linear_gelu.register_fake
def _(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])
