"""Loads a Wan transformer from one safetensors file in the original key layout.

This is the layout that Wan-Video and ComfyUI publish. Weights may be float32, float16, bfloat16 or
float8, the latter with the scales of ComfyUI's two conventions (`scale_weight` beside a
`scaled_fp8` marker, or `weight_scale` beside `comfy_quant`). The configuration comes from a folder
in diffusers' layout.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors import SafetensorError
from safetensors.torch import load_file

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.folder import compare_shapes, empty_transformer, expected_shapes
from deployments.video.checkpoints.read_ahead import read_ahead

PREFIXES = ("model.diffusion_model.", "diffusion_model.")
FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
_SCALES = (".scale_weight", ".weight_scale")
_ACTIVATION_SCALES = (".scale_input", ".input_scale")
"""Scales for products in float8. They are ignored, since weights are scaled back when loaded."""


def load_single_file(path: Path, part: Path, *, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the transformer in ``path``, in ``dtype`` on ``device``.

    ``part`` is the folder of its config.json. The file is mapped into memory, and each tensor is
    converted on the device. Raises ``CheckpointRefused`` for a file that does not fit.
    """
    read_ahead([path])
    tensors = _read(path)
    scales = _take_scales(path, tensors)
    model: Any = empty_transformer(part)
    # diffusers' conversion only renames, so names passed as values map new names to original ones.
    names: dict[str, str] = convert_wan_transformer_to_diffusers({name: name for name in tensors})
    compare_shapes(path, expected_shapes(model), {name: tuple(tensors[original].shape) for name, original in names.items()})
    kept_in_float32 = set(model._keep_in_fp32_modules) if dtype != torch.float32 else set()
    state = {}
    for name, original in names.items():
        tensor = tensors.pop(original).to(device)
        if original in scales:
            tensor = tensor.float() * scales[original].to(device, torch.float32)
        state[name] = tensor.to(torch.float32 if kept_in_float32.intersection(name.split(".")) else dtype)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(False).to(device)


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, ValueError, OSError) as e:
        raise CheckpointRefused(f"{path}: not a readable safetensors file, perhaps truncated ({e})") from e
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in tensors if name != "scaled_fp8"):
            tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _take_scales(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Remove scales and markers from ``tensors``; return the scales by the weights' names."""
    scaled = tensors.pop("scaled_fp8", None) is not None
    scales: dict[str, torch.Tensor] = {}
    for name in [*tensors]:
        if name.endswith(".comfy_quant"):
            quantisation = json.loads(bytes(tensors.pop(name).tolist()))
            if not str(quantisation.get("format", "")).startswith("float8"):
                raise CheckpointRefused(
                    f"{path}: `{name}` is {quantisation}; float8 is the only supported quantisation of ComfyUI"
                )
            scaled = True
        elif name.endswith(_SCALES):
            weight = name.rpartition(".")[0] + ".weight"
            if weight not in tensors:
                raise CheckpointRefused(f"{path}: `{name}` is a scale without its weight `{weight}`")
            scales[weight] = tensors.pop(name)
        elif name.endswith(_ACTIVATION_SCALES):
            del tensors[name]
    unscaled = [name for name, tensor in tensors.items() if scaled and tensor.dtype in FLOAT8 and name not in scales]
    if unscaled:
        raise CheckpointRefused(f"{path}: float8 weights are marked as scaled, but `{unscaled[0]}` has no scale")
    return scales
