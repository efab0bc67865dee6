"""Installs fast blocks in a transformer, and picks the operations that they run."""

import importlib
import logging
import os
from types import ModuleType
from typing import Any

import torch
from diffusers.models.activations import GELU
from diffusers.models.transformers.transformer_wan_vace import WanVACETransformerBlock

from deployments.settings import VideoSettings
from deployments.video.kernels.attention import pick_attention
from deployments.video.kernels.block import FastBlock, FastVaceBlock
from deployments.video.kernels.linear_gelu import LinearGelu

log = logging.getLogger(__name__)


def install_fast_blocks(transformer: Any, settings: VideoSettings, device: torch.device) -> None:
    """Replace the blocks of ``transformer`` in place, if ``device`` is a GPU."""
    if device.type != "cuda":
        return
    attention = pick_attention(settings, torch.cuda.get_device_capability(device), transformer.dtype)
    operations = pick_operations(settings)
    for blocks in (transformer.blocks, getattr(transformer, "vace_blocks", [])):
        for index, block in enumerate(blocks):
            first = block.ffn.net[0]
            if type(first) is GELU and type(first.proj) is torch.nn.Linear:  # not a quantised layer
                block.ffn.net[0] = LinearGelu(first)
            fast_class = FastVaceBlock if isinstance(block, WanVACETransformerBlock) else FastBlock
            blocks[index] = fast_class(block, operations, attention)
    log.info("attention: %s; operations: %s", attention.__name__, operations.__name__)


def pick_operations(settings: VideoSettings) -> ModuleType:
    """Return the module ``fused``, or ``reference`` where ``settings`` turn compiled kernels off.

    Sets the folder in which Triton keeps compiled kernels, if ``settings`` name one.
    """
    if not settings.compile:
        return importlib.import_module("deployments.video.kernels.reference")
    if settings.compile_cache is not None:
        os.environ.setdefault("TRITON_CACHE_DIR", str(settings.compile_cache))
    # Imported here because PyTorch for CPUs comes without Triton.
    return importlib.import_module("deployments.video.kernels.fused")
