"""Weights in 8 bits: what is scaled back, and what is refused with a sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.quantisation import take_quantisation
from deployments.video.checkpoints.tensor_files import read_tensors
from tests.engines.video.checkpoints.published import State

E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2
WEIGHT = "blocks.0.self_attn.q.weight"
LAYER = WEIGHT.removesuffix(".weight")
ROWS = torch.tensor([1.0, 4.0, 0.25, 2.0])[:, None]
"""Square matrices are the worst case: a scale of a row would also fit a column."""


def exact() -> torch.Tensor:
    """Return a matrix that 8 bits and a scale for each row hold exactly."""
    return torch.tensor([[1.0, -2.0, 4.0, 0.5], [8, 4, -2, 1], [3, 1, 2, -1], [0, 0, 1, 2]]) * ROWS


def stored(dtype: torch.dtype, scale: torch.Tensor) -> torch.Tensor:
    return (exact() / (scale.reshape(-1, 1) if scale.ndim else scale)).to(dtype)


def header(said: Any, layer: str = LAYER) -> dict[str, str]:
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": {layer: said}})}


def comfy(said: object) -> State:
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return {f"{LAYER}.comfy_quant": torch.frombuffer(bytearray(text), dtype=torch.uint8)}


def read(path: Path, tensors: State, metadata: dict[str, str] | None = None) -> torch.Tensor:
    save_file({name: t.contiguous() for name, t in tensors.items()}, path, metadata)
    file = read_tensors(path)
    quantisation = take_quantisation(file)
    (name,) = file.tensors
    return quantisation.restore(name, file.tensors[name])


ONE = torch.tensor(0.5)
RIGHT: dict[str, Callable[[], tuple[State, dict[str, str] | None]]] = {
    "a scale for each row, [out, 1]": lambda: ({WEIGHT: stored(E4M3, ROWS), f"{LAYER}.weight_scale": ROWS}, None),
    "a scale for each row, [out]": lambda: ({WEIGHT: stored(E4M3, ROWS), f"{LAYER}.scale_weight": ROWS[:, 0]}, None),
    "one scale, []": lambda: ({WEIGHT: stored(E4M3, ONE), f"{LAYER}.scale_weight": ONE}, None),
    "one scale, [1]": lambda: ({WEIGHT: stored(E5M2, ONE), f"{LAYER}.weight_scale": ONE[None]}, None),
    "one scale, [1, 1]": lambda: ({WEIGHT: stored(E4M3, ONE), f"{LAYER}.weight_scale": ONE[None, None]}, None),
    "int8, a scale for each row": lambda: ({WEIGHT: stored(torch.int8, ROWS / 2), f"{LAYER}.weight_scale": ROWS / 2}, None),
    "the header alone": lambda: (
        {WEIGHT: stored(E4M3, ONE), f"{LAYER}.weight_scale": ONE},
        header({"format": "float8_e4m3fn"}),
    ),
    "float8 as bytes, by comfy_quant": lambda: (
        {WEIGHT: stored(E4M3, ONE).view(torch.uint8), f"{LAYER}.weight_scale": ONE} | comfy({"format": "float8_e4m3fn"}),
        None,
    ),
    "float8 as bytes, by the header": lambda: (
        {WEIGHT: stored(E5M2, ROWS).view(torch.uint8), f"{LAYER}.weight_scale": ROWS},
        header({"format": "float8_e5m2_rowwise"}),
    ),
    "float8 as integers, by the header": lambda: (
        {WEIGHT: stored(E4M3, ROWS).view(torch.int8), f"{LAYER}.weight_scale": ROWS},
        header({"format": "float8_e4m3fn"}),
    ),
    "a prefix that the header leaves out": lambda: (
        {
            f"model.diffusion_model.{WEIGHT}": stored(E4M3, ONE).view(torch.uint8),
            f"model.diffusion_model.{LAYER}.weight_scale": ONE,
        },
        header({"format": "float8_e4m3fn"}),
    ),
    "scales of activations beside it": lambda: (
        {WEIGHT: stored(E4M3, ONE), f"{LAYER}.weight_scale": ONE, f"{LAYER}.input_scale": torch.ones(())},
        None,
    ),
    "unscaled float8": lambda: ({WEIGHT: exact().to(E4M3)}, None),
}


@pytest.mark.parametrize("form", RIGHT)
def test_the_weights_come_back_exactly(form: str, tmp_path: Path) -> None:
    tensors, metadata = RIGHT[form]()
    assert torch.equal(read(tmp_path / "m.safetensors", tensors, metadata).float(), exact())


SHAPES = {"a norm": (4,), "a matrix": (4, 3), "a convolution": (4, 2, 1, 2, 2), "as many rows as columns": (4, 4, 4)}
SCALES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "[out]": lambda scale: scale,
    "[out, 1]": lambda scale: scale[:, None],
    "[out, 1, 1, 1, 1]": lambda scale: scale[:, None, None, None, None],
}


@pytest.mark.parametrize("dtype", [E4M3, torch.int8])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_scale_of_rows_is_for_the_first_dimension(shape: str, scale: str, dtype: torch.dtype, tmp_path: Path) -> None:
    whole = torch.arange(64)[: torch.Size(SHAPES[shape]).numel()].remainder(7).reshape(SHAPES[shape]).to(torch.float32)
    rows = ROWS.flatten()
    tensors = {WEIGHT: whole.to(dtype), f"{LAYER}.weight_scale": SCALES[scale](rows)}
    expected = torch.stack([row * factor for row, factor in zip(whole, rows, strict=True)])
    assert torch.equal(read(tmp_path / "m.safetensors", tensors), expected)


Q = {WEIGHT: torch.zeros(4, 4, dtype=torch.int8)}
F = {WEIGHT: torch.zeros(4, 4, dtype=E4M3)}
REFUSED: dict[str, tuple[State, dict[str, str] | None, str]] = {
    "int8 without a scale": (Q, None, "is int8 and has no scale"),
    "marked float8 without a scale": (F | {"scaled_fp8": torch.zeros(0, dtype=E4M3)}, None, "has no scale"),
    "the header says so, and there is no scale": (F, header({"format": "float8_e4m3fn"}), "has no scale"),
    "bytes that nothing explains": (
        {WEIGHT: torch.zeros(4, 4, dtype=torch.uint8), f"{LAYER}.weight_scale": ONE},
        None,
        "is stored as bytes, and nothing says what they are",
    ),
    "bytes without a scale": ({WEIGHT: F[WEIGHT].view(torch.uint8)}, None, "is stored as bytes, and nothing says what"),
    "bytes that are marked as scaled": (
        {WEIGHT: F[WEIGHT].view(torch.uint8), "scaled_fp8": torch.zeros(0, dtype=E4M3)},
        None,
        "is stored as bytes, and nothing says what they are",
    ),
    "a bias of bytes": ({f"{LAYER}.bias": torch.zeros(4, dtype=torch.uint8)}, None, "is stored as bytes, and nothing says"),
    "no JSON": (F | comfy(b"not json"), None, "must be a JSON object that names a quantisation"),
    "no object": (F | comfy(["float8_e4m3fn"]), None, "must be a JSON object that names a quantisation"),
    "no JSON in the header": (F, {"_quantization_metadata": "{"}, "must be a JSON object that names a quantisation"),
    "no layers": (F, {"_quantization_metadata": '{"layers": {"a": 1}}'}, "has no `layers` with a format each"),
    "nvfp4": (F | comfy({"format": "nvfp4"}), None, "only float8 and int8"),
    "mxfp8": (F | {f"{LAYER}.weight_scale": torch.zeros(4, 1, dtype=torch.uint8)}, None, "a scale of blocks of weights"),
    "scales of blocks": (Q | {f"{LAYER}.weight_scale": torch.ones(2, 2)}, None, r"has shape \[2, 2\]; only one scale"),
    "scales of columns": (Q | {f"{LAYER}.weight_scale": torch.ones(1, 4)}, None, r"has shape \[1, 4\]; only one scale"),
    "rotated": (
        Q | {f"{LAYER}.weight_scale": ONE},
        header({"format": "int8_tensorwise", "convrot": True}),
        r"is rotated \(`convrot`\)",
    ),
    "a scale alone": ({f"{LAYER}.weight_scale": ONE}, None, "is a scale without its weight"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_forms_are_refused_with_the_reason(form: str, tmp_path: Path) -> None:
    tensors, metadata, message = REFUSED[form]
    with pytest.raises(CheckpointRefused, match=message) as refused:
        read(tmp_path / "m.safetensors", tensors, metadata)
    assert "m.safetensors" in str(refused.value)
