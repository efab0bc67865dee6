"""Loads a Wan transformer from a GGUF file in the original key layout; configuration from a local folder."""

from pathlib import Path
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig, WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from gguf import GGMLQuantizationType, GGUFReader

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints import compare_shapes, empty_transformer, expected_shapes


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
