"""The two experts of Wan 2.2 A14B: one file each, GGUF or safetensors; two that are one are refused."""

import filecmp
import logging
import math
import re
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.quantizers.gguf.utils import GGUFParameter

from deployments.errors import CheckpointRefused
from deployments.settings import Wan22Models
from deployments.video.gguf import load_gguf, stored_name
from deployments.video.single_file import load_single_file

log = logging.getLogger(__name__)

WORKING_BYTES = 10 * 2**30
"""Room for activations, latents and the VAE's decoding of large videos."""


def load_experts(models: Wan22Models, folder: Path, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
    """Both experts by their names in a pipeline; configurations from ``folder``. Raises CheckpointRefused."""
    _require_two(models.high_noise, models.low_noise)
    experts = {}
    for part, path in (("transformer", models.high_noise), ("transformer_2", models.low_noise)):
        if path.suffix == ".gguf":
            expert = load_gguf(path, folder, part, dtype, device)
        elif path.suffix == ".safetensors":
            expert = load_single_file(path, folder / part, dtype, device)
        else:
            raise CheckpointRefused(f"{path}: neither a .gguf nor a .safetensors file")
        if expert.config.in_channels != 36:
            raise CheckpointRefused(f"{folder / part}: {expert.config.in_channels} input channels; image-to-video has 36")
        experts[part] = expert
    return experts


def _require_two(high: Path, low: Path) -> None:
    """Both have the same keys and shapes: only names and contents tell them apart."""
    for path in (high, low):
        if not path.is_file():
            raise CheckpointRefused(f"{path}: no such file")
    if high.resolve() == low.resolve():
        raise CheckpointRefused(f"{high}: named as both experts; `high_noise` and `low_noise` are two files")
    for setting, path, own, other in (("high_noise", high, "high", "low"), ("low_noise", low, "low", "high")):
        for says in (path.name, stored_name(path) if path.suffix == ".gguf" else ""):
            if _names(says, other) and not _names(says, own):
                raise CheckpointRefused(f"{path}: configured as `{setting}`, but by its name `{says}` it is the other expert")
    if filecmp.cmp(high, low, shallow=False):
        raise CheckpointRefused(f"{high} and {low} hold the same bytes; `high_noise` and `low_noise` are two experts")


def _names(text: str, expert: str) -> bool:
    return re.search(rf"{expert}[-_ ]?noise", text, re.IGNORECASE) is not None


def dequantise_where_it_fits(
    experts: list[Any], how: Literal["auto", "dequantised", "quantised"], device: torch.device
) -> list[Any]:
    """``experts``, their linear layers made plain ones on the card where ``how`` says so, or for ``auto`` where both fit."""
    stored = [expert for expert in experts if getattr(expert, "is_quantized", False)]  # files may hold plain ones
    if device.type != "cuda" or how == "quantised" or not stored:
        return experts
    weights = [weight for expert in stored for weight in expert.parameters() if isinstance(weight, GGUFParameter)]
    free = torch.cuda.mem_get_info(device)[0] + sum(weight.nbytes for weight in weights)
    wanted = sum(2 * math.prod(weight.quant_shape) for weight in weights) + WORKING_BYTES
    if how == "auto" and free < wanted:
        log.info("experts stay quantised: dequantised they want %.0f GiB, %.0f GiB are free", wanted / 2**30, free / 2**30)
        return experts
    for expert in stored:
        expert.dequantize()
    log.info("experts dequantised on %s", device)
    return experts
