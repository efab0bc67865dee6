"""Loads a Wan transformer from a GGUF file in the original key layout.

The configuration comes from a folder in diffusers' layout.
"""

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
    """Open a Wan GGUF file, mapped into memory.

    Raises ``CheckpointRefused`` for a file that is absent, truncated, of another architecture or
    that has tensors of an unsupported type.
    """
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    try:
        reader = GGUFReader(path, "c")  # copy on write, because torch needs writable memory
    except (ValueError, IndexError, KeyError, OSError) as e:
        raise CheckpointRefused(f"{path}: not a readable GGUF file, perhaps truncated ({e})") from e
    architecture = reader.get_field("general.architecture")
    architecture_name = architecture.contents() if architecture is not None else None
    if architecture_name != "wan":
        raise CheckpointRefused(f"{path}: the architecture is `{architecture_name}`; expected `wan`")
    size = path.stat().st_size
    for tensor in reader.tensors:
        if tensor.data_offset + tensor.n_bytes > size:
            raise CheckpointRefused(f"{path}: truncated at tensor `{tensor.name}`")
        if tensor.tensor_type not in _PLAIN and tensor.tensor_type not in SUPPORTED_GGUF_QUANT_TYPES:
            supported = ", ".join(sorted(kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES))
            raise CheckpointRefused(
                f"{path}: tensor `{tensor.name}` is {tensor.tensor_type.name}, which is not supported; available: {supported}"
            )
    return reader


def stored_shapes(reader: GGUFReader) -> dict[str, tuple[int, ...]]:
    """Return the logical shape of every tensor in the file, by diffusers' names."""
    shapes = {t.name: tuple(int(n) for n in reversed(t.shape)) for t in reader.tensors}
    names: dict[str, str] = convert_wan_transformer_to_diffusers({name: name for name in shapes})
    return {name: shapes[original] for name, original in names.items()}


def stored_tensors(reader: GGUFReader) -> dict[str, torch.Tensor]:
    """Return all tensors by their names in the file.

    Quantised matrices stay as they are stored; other quantised tensors are dequantised.
    """
    return {tensor.name: _read(tensor) for tensor in reader.tensors}


def _read(tensor: ReaderTensor) -> torch.Tensor:
    kind, data = tensor.tensor_type, torch.from_numpy(tensor.data)
    if kind in _PLAIN:
        return data.view(_PLAIN[kind]) if kind == GGMLQuantizationType.BF16 else data
    if len(tensor.shape) == 2:
        packed: torch.Tensor = GGUFParameter(data, quant_type=kind)
        return packed
    # Only linear layers compute from quantised weights.
    return torch.from_numpy(dequantize(tensor.data, kind))


def load_gguf(path: Path, *, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the transformer in ``path`` as it is stored, with the configuration in ``folder/part``.

    ``dtype`` is what it computes in. Raises ``CheckpointRefused`` for a file that does not fit.
    """
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
    """Return the name in the metadata of the file, or an empty string."""
    field = open_gguf(path).get_field("general.name")
    return str(field.contents()) if field is not None else ""
