"""Weights that are stored in 8 bits with a scale, as ComfyUI and its users publish them.

A scale stands beside its weight as `scale_weight` or `weight_scale`: one number, or one for each
row. What the 8 bits are is said by the tensor's dtype, by `comfy_quant` beside the weight or by
`_quantization_metadata` in the header of the file. Weights are scaled back when they are loaded.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.tensor_files import StoredTensors, parse_object

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2)
HEADER = "_quantization_metadata"
MARKER = "scaled_fp8"
_SCALES = (".scale_weight", ".weight_scale")
_ACTIVATION_SCALES = (".scale_input", ".input_scale")
"""Scales for products in 8 bits. They are ignored, since weights are scaled back when loaded."""
_BYTES = (torch.uint8, torch.int8)
"""The dtypes in which programs without float8 store its bytes."""
_FORMATS = {
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "int8": torch.int8,
}
"""The dtype of each format, by the beginning of its name; the rest may say what a scale is for."""
_GRANULARITIES = ("", "scaled", "rowwise", "tensorwise")


@dataclass(frozen=True)
class Quantisation:
    """How the weights of one file are scaled back."""

    where: Path
    scales: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """By the names of the weights, ``[]`` or ``[rows, 1, ...]``, with the weight's dimensions."""
    dtypes: Mapping[str, torch.dtype] = field(default_factory=dict)
    """The dtypes of weights that are stored as plain bytes."""

    def restore(self, name: str, stored: torch.Tensor) -> torch.Tensor:
        """Return the floating-point weight ``name``, of which ``stored`` may be on any device."""
        if name in self.dtypes:
            stored = stored.view(self.dtypes[name])
        scale = self.scales.get(name)
        return stored if scale is None else stored.float() * scale.to(stored.device, torch.float32)


def take_quantisation(stored: StoredTensors, others: Iterable[str] = ()) -> Quantisation:
    """Remove scales and markers from ``stored.tensors``, and return what they say.

    ``others`` are the names of tensors in the file that are not read, such as those of another
    model; what the header says of these is passed over. Raises ``CheckpointRefused`` for a
    quantisation that cannot be scaled back: another one than 8-bit floating point and integers,
    rotated weights, and scales of blocks.
    """
    where, tensors = stored.where, stored.tensors
    formats = _formats_in_header(where, stored, others)
    is_scaled = bool(formats)
    for name in [*tensors]:
        layer, _, end = name.rpartition(".")
        if end == MARKER:
            del tensors[name]
            is_scaled = True
        elif end == "comfy_quant":
            formats[layer] = _parse(where, name, bytes(tensors.pop(name).flatten().to(torch.uint8).tolist()))
            is_scaled = True
    dtypes = {f"{layer}.weight": _dtype_of(where, layer, said) for layer, said in formats.items()}
    scales: dict[str, torch.Tensor] = {}
    for name in [*tensors]:
        if name.endswith(_SCALES):
            weight = f"{name.rpartition('.')[0]}.weight"
            if weight not in tensors:
                raise CheckpointRefused(f"{where}: `{name}` is a scale without its weight `{weight}`")
            scales[weight] = _shaped(where, name, tensors.pop(name), weight=tensors[weight].shape)
        elif name.endswith(_ACTIVATION_SCALES):
            del tensors[name]
    _require_readable(where, tensors, dtypes=dtypes, scales=scales, is_scaled=is_scaled)
    bytes_only = {name: dtype for name, dtype in dtypes.items() if name in tensors and tensors[name].dtype in _BYTES}
    return Quantisation(where, scales, bytes_only)


def _formats_in_header(where: Path, stored: StoredTensors, others: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Return what the header says of each layer that is read, by the layer's name in the file."""
    text = stored.metadata.get(HEADER)
    if text is None:
        return {}
    layers = _parse(where, HEADER, text).get("layers", {})
    if not isinstance(layers, Mapping) or not all(isinstance(said, Mapping) for said in layers.values()):
        raise CheckpointRefused(f"{where}: `{HEADER}` has no `layers` with a format each")
    # The header may leave out the prefix that the names of the tensors have.
    weights = [name.removesuffix(".weight") for name in stored.tensors if name.endswith(".weight")]
    named = {layer: layer for layer in weights} | {
        layer.removeprefix(prefix): layer
        for prefix in ("model.diffusion_model.", "diffusion_model.", "model.")
        for layer in weights
        if layer.startswith(prefix)
    }
    elsewhere = {end for name in others for end in _ends(name.removesuffix(".weight"))} - named.keys()
    return {named.get(str(layer), str(layer)): said for layer, said in layers.items() if layer not in elsewhere}


def _ends(name: str) -> Iterator[str]:
    """Yield a layer's name, and what is left of it without its first word, and so on."""
    while name:
        yield name
        name = name.partition(".")[2]


def _parse(where: Path, name: str, text: str | bytes) -> Mapping[str, Any]:
    return parse_object(text, f"{where}: `{name}` must be a JSON object that names a quantisation")


def _dtype_of(where: Path, layer: str, said: Mapping[str, Any]) -> torch.dtype:
    name = str(said.get("format", ""))
    for known, dtype in _FORMATS.items():
        if name.startswith(known) and name.removeprefix(known).lstrip("_") in _GRANULARITIES:
            if said.get("convrot"):
                raise CheckpointRefused(
                    f"{where}: the weight of `{layer}` is rotated (`convrot`), which is not supported; use a file without it"
                )
            return dtype
    raise CheckpointRefused(
        f"{where}: `{layer}` is quantised as {dict(said)}; only float8 and int8 with one scale for a weight or for each row "
        "are supported"
    )


def _shaped(where: Path, name: str, scale: torch.Tensor, weight: torch.Size) -> torch.Tensor:
    """Return a scale as ``[]`` or ``[rows, 1, ...]``; ``weight`` is the shape of its weight."""
    if not scale.dtype.is_floating_point:
        raise CheckpointRefused(f"{where}: `{name}` is {_kind(scale)}, a scale of blocks of weights, which is not supported")
    if scale.numel() == 1:
        return scale.reshape(())
    rows = weight[0] if weight else 1
    if scale.numel() == rows == scale.shape[0]:
        return scale.reshape(rows, *(1 for _ in weight[1:]))
    raise CheckpointRefused(
        f"{where}: `{name}` has shape {list(scale.shape)}; only one scale for a weight, or one for each of its {rows} rows, "
        "is supported"
    )


def _require_readable(
    where: Path,
    tensors: Mapping[str, torch.Tensor],
    *,
    dtypes: Mapping[str, torch.dtype],
    scales: Mapping[str, torch.Tensor],
    is_scaled: bool,
) -> None:
    """Raise ``CheckpointRefused`` for a tensor whose numbers nothing in the file explains."""
    for name, tensor in tensors.items():
        dtype = dtypes.get(name, tensor.dtype) if tensor.dtype in _BYTES else tensor.dtype
        if name in dtypes and tensor.element_size() != 1 and name in scales:
            raise CheckpointRefused(f"{where}: `{name}` is {_kind(tensor)}, but marked as quantised to 8 bits")
        if dtype == torch.uint8:
            raise CheckpointRefused(f"{where}: `{name}` is stored as bytes, and nothing says what they are")
        if not dtype.is_floating_point and name not in scales:
            raise CheckpointRefused(f"{where}: `{name}` is {_kind(tensor)} and has no scale; weights must be floating point")
        if is_scaled and dtype in FLOAT8 and name not in scales:
            raise CheckpointRefused(f"{where}: float8 weights are marked as scaled, but `{name}` has no scale")


def _kind(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
