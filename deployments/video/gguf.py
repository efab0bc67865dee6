"""Loads a Wan transformer from a GGUF file in the original key layout; configuration from a local folder."""

import logging
import math
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import GGUFQuantizationConfig, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.quantizers.gguf.utils import GGUFParameter
from gguf import GGMLQuantizationType, GGUFReader

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints import compare_shapes, empty_transformer, expected_shapes

log = logging.getLogger(__name__)

WORKING_BYTES = 10 * 2**30
"""Room for activations, latents and the VAE's decoding of large videos."""


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name (diffusers') and logical shape of every tensor in the file; raises CheckpointRefused if it is no Wan GGUF."""
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, OSError) as e:
        raise CheckpointRefused(f"{path}: not a readable GGUF file, perhaps truncated ({e})") from e
    architecture = reader.get_field("general.architecture")
    named = architecture.contents() if architecture is not None else None
    if named != "wan":
        raise CheckpointRefused(f"{path}: architecture `{named}`, expected `wan`")
    size = path.stat().st_size
    for tensor in reader.tensors:
        if tensor.data_offset + tensor.n_bytes > size:
            raise CheckpointRefused(f"{path}: truncated at tensor `{tensor.name}`")
        if tensor.tensor_type == GGMLQuantizationType.BF16 and len(tensor.shape) != 2:
            raise CheckpointRefused(
                f"{path}: tensor `{tensor.name}` is BF16; only matrices may be, convert the others to F32 or F16"
            )
    # The names go through diffusers' own table; the tensors themselves stay where they are.
    named_shapes = {t.name: torch.empty([int(n) for n in reversed(t.shape)], device="meta") for t in reader.tensors}
    return {name: tuple(t.shape) for name, t in convert_wan_transformer_to_diffusers(named_shapes).items()}


def load_expert(path: Path, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """One expert: weights from ``path``, quantised as stored; configuration from ``folder/part``."""
    compare_shapes(path, expected_shapes(empty_transformer(folder / part)), stored_shapes(path))
    model = WanTransformer3DModel.from_single_file(
        str(path),
        quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        config=str(folder),
        subfolder=part,
        dtype=dtype,
        local_files_only=True,
    )
    return model.eval().requires_grad_(False).to(device)


def dequantise_where_it_fits(
    experts: list[Any], how: Literal["auto", "dequantised", "quantised"], device: torch.device
) -> list[Any]:
    """``experts``, their linear layers made plain ones on the card where ``how`` says so, or for ``auto`` where both fit."""
    if device.type != "cuda" or how == "quantised":
        return experts
    free, _ = torch.cuda.mem_get_info(device)
    wanted = sum(2 * math.prod(weight.quant_shape) for expert in experts for weight in _quantised(expert)) + WORKING_BYTES
    free += sum(weight.nbytes for expert in experts for weight in _quantised(expert))
    if how == "auto" and free < wanted:
        log.info("experts stay quantised: dequantised they want %.0f GiB, %.0f GiB are free", wanted / 2**30, free / 2**30)
        return experts
    for expert in experts:
        expert.dequantize()
    log.info("experts dequantised on %s", torch.cuda.get_device_name(device))
    return experts


def _quantised(expert: Any) -> list[Any]:
    return [weight for weight in expert.parameters() if isinstance(weight, GGUFParameter) and hasattr(weight, "quant_shape")]
