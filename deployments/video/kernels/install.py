"""What makes the same arithmetic faster on a GPU: fused passes, cuDNN's attention, a linear layer with its activation.

Nothing here changes what is computed, only how it is rounded; docs/performance.md has both figures.
"""

import importlib
import logging
import os
from types import ModuleType
from typing import Any

import torch
from diffusers.models.activations import GELU
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock

from deployments.settings import VideoSettings
from deployments.video.kernels.block import FastBlock, FastVaceBlock, cudnn_attention, native_attention
from deployments.video.vae.fast import quicken

log = logging.getLogger(__name__)

HOPPER = (9, 0)


def accelerate(transformer: Any, settings: VideoSettings, device: torch.device) -> None:
    """Prepares a transformer on ``device``, in place. A CPU runs it as it is."""
    if device.type != "cuda":
        return
    attention = pick_attention(settings, torch.cuda.get_device_capability(device), transformer.dtype)
    operations = pick_operations(settings)
    for blocks in (transformer.blocks, getattr(transformer, "vace_blocks", [])):
        for number, block in enumerate(blocks):
            first = block.ffn.net[0]
            if type(first) is GELU and type(first.proj) is torch.nn.Linear:  # a quantised layer is no such
                block.ffn.net[0] = LinearGelu(first)
            kind = FastVaceBlock if isinstance(block, WanVACETransformerBlock) else FastBlock
            blocks[number] = kind(block, operations, cudnn_attention if attention == "cudnn" else native_attention)
    log.info("attention: %s; operations: %s", attention, operations.__name__)


def accelerate_vae(vae: Any, settings: VideoSettings, device: torch.device) -> None:
    """The same for a VAE."""
    if device.type == "cuda":
        quicken(vae, pick_operations(settings))


def pick_operations(settings: VideoSettings) -> ModuleType:
    """The module of operations; sets where its kernels are kept once they are compiled."""
    if not settings.compile:
        return importlib.import_module("deployments.video.kernels.reference")
    if settings.compile_cache is not None:
        os.environ.setdefault("TRITON_CACHE_DIR", str(settings.compile_cache))
    return importlib.import_module("deployments.video.kernels.fused")  # here, since a PyTorch for CPUs comes without Triton


def pick_attention(settings: VideoSettings, capability: tuple[int, int], dtype: torch.dtype) -> str:
    """Which attention runs: cuDNN's from Hopper on (there twice as fast as PyTorch's own), else PyTorch's; that alone knows float32."""
    if dtype is torch.float32:
        return "native"
    if settings.attention == "auto":
        return "cudnn" if capability >= HOPPER else "native"
    return settings.attention


class LinearGelu(torch.nn.Module):
    """Diffusers' ``GELU`` (a linear layer and its tanh-approximated activation) as one kernel: cuBLAS has it as an epilogue."""

    def __init__(self, gelu: GELU) -> None:
        super().__init__()
        self.proj = gelu.proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``[n, tokens, width]`` -> ``[n, tokens, features]``."""
        rows: torch.Tensor = torch._addmm_activation(self.proj.bias, x.flatten(0, 1), self.proj.weight.T, use_gelu=True)
        return rows.view(*x.shape[:2], -1)
