"""Writes a Wan transformer as a GGUF file in the original Wan key layout.

The weights are quantised to Q8_0 or Q5_K, or kept (F32). The `gguf` package cannot quantise to K
types, so Q5_K is implemented here: it is affine, with one scale and one minimum per 32 weights, in
the block layout of ggml's ``block_q5_K``. `gguf.quants.dequantize` reads it back.
"""

from pathlib import Path
from typing import Literal

import gguf
import numpy as np
import numpy.typing as npt
import torch

Quantization = Literal["F32", "Q8_0", "Q5_K"]

# From diffusers' names to those of the original release. Longer patterns come first.
_ORIGINAL_NAMES = (
    ("condition_embedder.time_embedder.linear_1", "time_embedding.0"),
    ("condition_embedder.time_embedder.linear_2", "time_embedding.2"),
    ("condition_embedder.text_embedder.linear_1", "text_embedding.0"),
    ("condition_embedder.text_embedder.linear_2", "text_embedding.2"),
    ("condition_embedder.time_proj", "time_projection.1"),
    (".attn1.", ".self_attn."),
    (".attn2.", ".cross_attn."),
    (".to_out.0.", ".o."),
    (".to_q.", ".q."),
    (".to_k.", ".k."),
    (".to_v.", ".v."),
    (".ffn.net.0.proj.", ".ffn.0."),
    (".ffn.net.2.", ".ffn.2."),
    (".norm2.", ".norm#."),  # the two norms have each other's number
    (".norm3.", ".norm2."),
    (".norm#.", ".norm3."),
    ("proj_out.", "head.head."),
)


def original_name(name: str) -> str:
    """Return the original release's name of a tensor of diffusers' ``WanTransformer3DModel``."""
    if name == "scale_shift_table":
        return "head.modulation"
    for ours, theirs in _ORIGINAL_NAMES:
        name = name.replace(ours, theirs)
    return name.replace("scale_shift_table", "modulation")


def write_wan_gguf(path: Path, state: dict[str, torch.Tensor], *, quantization: Quantization, name: str) -> None:
    """Write ``state``, the state of a ``WanTransformer3DModel``, to ``path``.

    Its names are those of diffusers. Matrices are quantised. Biases, norms and the patch embedding
    are float16 where that is exact, else they stay float32, as the modulation does.
    """
    kind = gguf.GGMLQuantizationType[quantization]
    writer = gguf.GGUFWriter(path, arch="wan")
    writer.add_name(name)
    for key, tensor in state.items():
        array = tensor.detach().to(torch.float32).cpu().numpy()
        if array.ndim == 2 and key.endswith(".weight"):
            packed = quantize_q5_k(array) if quantization == "Q5_K" else gguf.quants.quantize(array, kind)
            writer.add_tensor(original_name(key), packed, raw_dtype=kind)
        else:
            half = array.astype(np.float16)
            is_exact = "scale_shift_table" not in key and np.array_equal(half.astype(np.float32), array)
            writer.add_tensor(original_name(key), half if is_exact else array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def quantize_q5_k(array: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Pack float32 ``[rows, columns]`` into Q5_K: uint8 ``[rows, columns / 256 * 176]``.

    Raises ValueError if ``columns`` is not a multiple of 256.
    """
    rows, columns = array.shape
    if columns % 256:
        raise ValueError(f"Q5_K packs blocks of 256 weights; {columns} columns are not a multiple of 256")
    groups = array.reshape(-1, 8, 32)
    minimum = np.maximum(0.0, -groups.min(axis=2))
    scale = (groups.max(axis=2) + minimum).clip(min=0.0) / 31
    d = (scale.max(axis=1) / 63).astype(np.float16)
    d_min = (minimum.max(axis=1) / 63).astype(np.float16)
    scale6 = _divide(scale, d[:, None]).round().clip(0, 63).astype(np.uint8)
    minimum6 = _divide(minimum, d_min[:, None]).round().clip(0, 63).astype(np.uint8)
    step = d.astype(np.float32)[:, None] * scale6
    offset = d_min.astype(np.float32)[:, None] * minimum6
    q = _divide(groups + offset[:, :, None], step[:, :, None]).round().clip(0, 31).astype(np.uint8)

    scales = np.empty((len(q), 12), np.uint8)
    scales[:, 0:4] = scale6[:, :4] | (scale6[:, 4:] >> 4 << 6)
    scales[:, 4:8] = minimum6[:, :4] | (minimum6[:, 4:] >> 4 << 6)
    scales[:, 8:12] = (scale6[:, 4:] & 15) | ((minimum6[:, 4:] & 15) << 4)
    low = (q & 15).reshape(-1, 4, 2, 32)
    nibbles = (low[:, :, 0] | (low[:, :, 1] << 4)).reshape(-1, 128)
    high = np.zeros((len(q), 32), np.uint8)
    for group in range(8):
        high |= (q[:, group] >> 4) << group
    blocks = [d.view(np.uint8).reshape(-1, 2), d_min.view(np.uint8).reshape(-1, 2), scales, high, nibbles]
    return np.concatenate(blocks, axis=1).reshape(rows, columns // 256 * 176)


def _divide(a: npt.NDArray[np.float32], b: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """Return a / b, and 0 where b is 0."""
    b32 = np.broadcast_to(b.astype(np.float32), a.shape)
    return np.divide(a, b32, out=np.zeros_like(a, dtype=np.float32), where=b32 != 0)
