"""Loads a Wan transformer from a GGUF file in the original key layout.

The configuration comes from a folder in diffusers' layout. Converters differ in the architecture
that they write and in the prefix of the names, so a file is known by its tensors.
"""

import re
import struct
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers import GGUFQuantizationConfig
from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFReader, ReaderTensor
from gguf.quants import dequantize

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.finite import require_finite
from deployments.video.checkpoints.folder import GGUF_ENCODER, empty_transformer
from deployments.video.checkpoints.names import TRANSFORMER_PREFIXES, Shapes, select_part, transformer_name
from deployments.video.checkpoints.read_ahead import read_ahead
from deployments.video.checkpoints.tensor_files import unreadable
from deployments.video.checkpoints.weights import compare_shapes, expected_shapes, skipped_names

_SPLIT = re.compile(r"-\d{5}-of-(?!00001)\d{5}\.gguf$")
_PLAIN = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
_TABLES = ("scale_shift_table", "pos_embed")
"""Parameters whose first dimension is 1, by the last parts of their names."""
_CONVOLUTIONS = {f"{name}.weight": f"{name}.bias" for name in ("patch_embedding", "vace_patch_embedding")}
"""The weights with five dimensions, each with the bias that tells how many outputs it has."""


class OtherModel(CheckpointRefused):
    """A GGUF file is that of a model other than Wan."""


def open_gguf(path: Path) -> GGUFReader:
    """Open a Wan GGUF file, mapped into memory.

    Raises ``CheckpointRefused`` for a file that is absent, truncated or that has tensors of an
    unsupported type, and ``OtherModel`` for one of another architecture.
    """
    if not path.is_file():
        raise CheckpointRefused(f"{path}: no such file")
    if _SPLIT.search(path.name):
        raise CheckpointRefused(
            f"{path}: one of the files of a split model, which are not supported; join them to one with llama.cpp's "
            "`llama-gguf-split --merge`"
        )
    try:
        reader = GGUFReader(path, "c")  # copy on write, because torch needs writable memory
    except (ValueError, IndexError, KeyError, OSError, OverflowError, MemoryError, struct.error) as e:
        raise unreadable(path, "GGUF", e) from e
    architecture = _value(path, reader, "general.architecture")
    said = "not named" if architecture is None else str(architecture)
    if said.startswith("t5") or any(str(tensor.name).startswith("enc.blk.") for tensor in reader.tensors):
        raise CheckpointRefused(f"{path}: {GGUF_ENCODER}")
    if said != "wan" and not any(name.startswith("blocks.0.self_attn.") for name in _named(reader)):
        raise OtherModel(f"{path}: has no tensors of a Wan transformer; its architecture is `{said}`, expected `wan`")
    size = path.stat().st_size
    for tensor in reader.tensors:
        if tensor.data_offset + tensor.n_bytes > size:
            raise CheckpointRefused(f"{path}: truncated at tensor `{tensor.name}`")
        _require_shape(path, reader, tensor)
        if tensor.tensor_type not in _PLAIN and tensor.tensor_type not in SUPPORTED_GGUF_QUANT_TYPES:
            supported = ", ".join(sorted(kind.name for kind in SUPPORTED_GGUF_QUANT_TYPES))
            raise CheckpointRefused(
                f"{path}: tensor `{tensor.name}` is {tensor.tensor_type.name}, which is not supported; available: {supported}"
            )
    return reader


def stored_shapes(reader: GGUFReader) -> dict[str, tuple[int, ...]]:
    """Return the logical shape of every tensor in the file, by diffusers' names."""
    shapes = {transformer_name(name): _shape(reader, tensor) for name, tensor in _named(reader).items()}
    return {name: _whole_shape(name, shapes) for name in shapes}


def _whole_shape(name: str, shapes: Shapes) -> tuple[int, ...]:
    """Return the shape of the tensor ``name`` with the dimensions that ggml does not store.

    stable-diffusion.cpp writes at most four: it merges the first two of a convolution over time,
    and leaves out the first of a table if that is 1. The order of the numbers stays the same.
    """
    shape = shapes[name]
    if name.rpartition(".")[2] in _TABLES and len(shape) == 2:
        return (1, *shape)
    if name in _CONVOLUTIONS and len(shape) == 4:
        (width, *more) = shapes.get(_CONVOLUTIONS[name]) or (0,)
        if width and not more and shape[0] % width == 0:
            return (width, shape[0] // width, *shape[1:])
    return shape


def stored_tensors(reader: GGUFReader) -> dict[str, torch.Tensor]:
    """Return all tensors by diffusers' names.

    Quantised matrices stay as they are stored; other quantised tensors are dequantised.
    """
    shapes = stored_shapes(reader)
    tensors = {transformer_name(name): tensor for name, tensor in _named(reader).items()}
    return {name: _read(tensor, shapes[name]) for name, tensor in tensors.items()}


def match_gguf(model: Any, path: Path, shapes: Shapes) -> set[str]:
    """Return the names of the tensors in a file of ``shapes`` that ``model`` has.

    Raises ``CheckpointRefused`` for a file that does not fit.
    """
    skipped = skipped_names(model, shapes)
    found = {name: shape for name, shape in shapes.items() if name not in skipped}
    compare_shapes(path, expected_shapes(model), found)
    return set(found)


def _named(reader: GGUFReader) -> dict[str, ReaderTensor]:
    """Return the tensors by their names without a prefix."""
    by_name = {str(tensor.name): tensor for tensor in reader.tensors}
    return {name: by_name[in_file] for name, in_file in select_part(by_name, TRANSFORMER_PREFIXES).items()}


def _shape(reader: GGUFReader, tensor: ReaderTensor) -> tuple[int, ...]:
    """Return the shape of a tensor, which a converter may have stored flat and noted elsewhere."""
    noted = reader.get_field(_noted_shape(tensor))
    return tuple(int(side) for side in (noted.contents() if noted is not None else reversed(tensor.shape)))


def _noted_shape(tensor: ReaderTensor) -> str:
    """Return the key under which a converter notes the shape of a tensor that it stores flat."""
    return f"comfy.gguf.orig_shape.{tensor.name}"


def _require_shape(path: Path, reader: GGUFReader, tensor: ReaderTensor) -> None:
    """Raise ``CheckpointRefused`` if a tensor cannot have the shape that is noted for it."""
    shape = _value(path, reader, _noted_shape(tensor))
    count = prod(int(side) for side in tensor.shape)
    if shape is None or (
        isinstance(shape, list) and all(type(side) is int and side >= 0 for side in shape) and prod(shape) == count
    ):
        return
    raise CheckpointRefused(
        f"{path}: `{_noted_shape(tensor)}` is {shape!r}, but must be a list of whole numbers whose product is {count}"
    )


def _value(path: Path, reader: GGUFReader, key: str) -> Any:
    """Return a value of the metadata, or None.

    Raises ``CheckpointRefused`` for text that is not UTF-8.
    """
    found = reader.get_field(key)
    try:
        return None if found is None else found.contents()
    except UnicodeDecodeError as e:
        raise CheckpointRefused(f"{path}: `{key}` is not UTF-8 text ({e})") from None


def _read(tensor: ReaderTensor, shape: tuple[int, ...]) -> torch.Tensor:
    kind, data = tensor.tensor_type, torch.from_numpy(tensor.data)
    if kind in _PLAIN:
        return (data.view(_PLAIN[kind]) if kind == GGMLQuantizationType.BF16 else data).reshape(shape)
    block, nbytes = GGML_QUANT_SIZES[kind]
    if len(shape) == 2 and shape[1] % block == 0:
        # A matrix that is stored flat has other rows, and the same blocks.
        packed: torch.Tensor = GGUFParameter(data.reshape(shape[0], shape[1] // block * nbytes), quant_type=kind)
        return packed
    # Only linear layers compute from quantised weights, and only from whole blocks in each row.
    return torch.from_numpy(dequantize(tensor.data, kind)).reshape(shape)


_BLOCK_SCALES: dict[GGMLQuantizationType, tuple[int, ...]] = {
    GGMLQuantizationType.Q4_0: (0,),
    GGMLQuantizationType.Q4_1: (0, 2),
    GGMLQuantizationType.Q5_0: (0,),
    GGMLQuantizationType.Q5_1: (0, 2),
    GGMLQuantizationType.Q8_0: (0,),
    GGMLQuantizationType.Q2_K: (80, 82),
    GGMLQuantizationType.Q3_K: (108,),
    GGMLQuantizationType.Q4_K: (0, 2),
    GGMLQuantizationType.Q5_K: (0, 2),
    GGMLQuantizationType.Q6_K: (208,),
    GGMLQuantizationType.IQ4_NL: (0,),
    GGMLQuantizationType.IQ4_XS: (0,),
}
"""Where a block has its float16 scales. Its other numbers are whole, and so always finite."""


def _require_finite(path: Path, reader: GGUFReader) -> None:
    """Raise ``CheckpointRefused`` if a tensor holds NaN or infinity; of blocks, scales decide."""
    found: dict[str, torch.Tensor] = {}
    for tensor in reader.tensors:
        data = torch.from_numpy(tensor.data)
        if tensor.tensor_type in _PLAIN:
            found[tensor.name] = data.view(_PLAIN[tensor.tensor_type])
        else:
            blocks = data.reshape(-1, GGML_QUANT_SIZES[tensor.tensor_type][1])
            for offset in _BLOCK_SCALES.get(tensor.tensor_type, ()):
                scales = blocks[:, offset : offset + 2].contiguous().view(torch.float16)
                found[tensor.name] = torch.cat([found[tensor.name], scales]) if tensor.name in found else scales
    require_finite(path, found)


def load_gguf(path: Path, *, folder: Path, part: str, dtype: torch.dtype, device: torch.device) -> Any:
    """Load the transformer in ``path`` as it is stored, with the configuration in ``folder/part``.

    ``dtype`` is what it computes in. Raises ``CheckpointRefused`` for a file that does not fit.
    """
    reader = open_gguf(path)
    read_ahead([path])
    _require_finite(path, reader)
    empty: Any = empty_transformer(folder / part)
    names = match_gguf(empty, path, stored_shapes(reader))
    # With diffusers' own names, it does not convert them: it knows fewer of the original ones.
    model = type(empty).from_single_file(
        {name: tensor for name, tensor in stored_tensors(reader).items() if name in names},
        quantization_config=GGUFQuantizationConfig(compute_dtype=dtype),
        config=str(folder),
        subfolder=part,
        dtype=dtype,
        local_files_only=True,
    )
    return model.eval().requires_grad_(False).to(device)


def stored_name(path: Path) -> str:
    """Return the name in the metadata of the file, or an empty string."""
    name = _value(path, open_gguf(path), "general.name")
    return "" if name is None else str(name)
