"""Loads a Wan transformer from a GGUF file in the original key layout; configuration from a local folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter
from gguf import GGMLQuantizationType, GGUFReader, ReaderTensor
from gguf.quants import dequantize

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.folder import compare_shapes, empty_transformer, expected_shapes
from deployments.video.checkpoints.read_ahead import read_ahead

_PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}


def open_gguf(path: Path) -> GGUFReader:
    """A reader of a whole Wan GGUF file, mapped into memory; raises CheckpointRefused for anything else."""
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    try:
        reader = GGUFReader(path, "c")  # copy on write, though nothing is written: torch wants writable memory
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
        if tensor.tensor_type not in _PLAIN and tensor.tensor_type not in SUPPORTED_GGUF_QUANT_TYPES:
            known = ", ".join(sorted(kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES))
            raise CheckpointRefused(f"{path}: tensor `{tensor.name}` is {tensor.tensor_type.name}; known are {known}")
    return reader


def stored_shapes(reader: GGUFReader) -> dict[str, tuple[int, ...]]:
    """Name (diffusers') and logical shape of every tensor in the file."""
    # The names go through diffusers' own table; the tensors themselves stay where they are.
    shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
    names: dict[str, str] = convert_wan_transformer_to_diffusers({name: name for name in shapes})
    return {ours: shapes[theirs] for ours, theirs in names.items()}


def stored_tensors(reader: GGUFReader) -> dict[str, torch.Tensor]:
    """All tensors by their names in the file: matrices as they are stored, everything else plain."""
    return {tensor.name: _read(tensor) for tensor in reader.tensors}


def _read(tensor: ReaderTensor) -> torch.Tensor:
    kind, data = tensor.tensor_type, torch.from_numpy(tensor.data)
    if kind in _PLAIN:
        return data.view(_PLAIN[kind]) if kind == GGMLQuantizationType.BF16 else data
    if len(tensor.shape) == 2:
        packed: torch.Tensor = GGUFParameter(data, quant_type=kind)
        return packed
    return torch.from_numpy(dequantize(tensor.data, kind))  # only linear layers are quantised while they work


def load_gguf(path: Path, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """The transformer in ``path``, quantised as stored; configuration from ``folder/part``."""
    reader = open_gguf(path)
    read_ahead([path])
    compare_shapes(path, expected_shapes(empty_transformer(folder / part)), stored_shapes(reader))
    model = WanTransformer3DModel.from_single_file(
        stored_tensors(reader),
        quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        config=str(folder),
        subfolder=part,
        dtype=dtype,
        local_files_only=True,
    )
    return model.eval().requires_grad_(False).to(device)


def stored_name(path: Path) -> str:
    """What the file calls itself, perhaps nothing."""
    field = open_gguf(path).get_field("general.name")
    return str(field.contents()) if field is not None else ""
