"""Engines of Wan22GGUF with the demo's experts in other precisions."""

from pathlib import Path

import gguf
import torch
from diffusers import WanTransformer3DModel

from demo.checkpoints import DemoCheckpoints
from deployments.settings import Wan22Models, Wan22Settings
from deployments.video.build import build_wan22
from deployments.video.engine import WanEngine
from training.gguf_file import Quantization, original_name, write_wan_gguf
from training.run import load_average
from training.text import make_text_encoder
from training.transformers import CONFIG

State = dict[str, torch.Tensor]


def build_engines(
    checkpoints: DemoCheckpoints, folder: Path, states: Path | None, settings: Wan22Settings
) -> dict[str, WanEngine]:
    """Return engines by precision: `Q8_0` as shipped, and `Q5_K` made from it.

    With the states of the training there is also `float32`, and `Q5_K` is made from that.
    """
    shipped = {"high": checkpoints.high_noise, "low": checkpoints.low_noise}
    masters = {
        name: stored_state(path) if states is None else trained_state(states / f"{name}.pt") for name, path in shipped.items()
    }
    kinds: dict[str, Quantization] = {"Q5_K": "Q5_K"}
    if states is not None:
        kinds["float32"] = "F32"
    built = {"Q8_0": build_wan22(settings, _models(checkpoints, shipped))}
    for kind, quantization in kinds.items():
        files = {name: folder / f"{name}-{kind}.gguf" for name in shipped}
        for name, file in files.items():
            write_wan_gguf(file, masters[name], quantization=quantization, name=file.stem)
        built[kind] = build_wan22(settings, _models(checkpoints, files))
    return built


def stored_state(path: Path) -> State:
    """Return the tensors of a GGUF file in float32, by diffusers' names."""
    with torch.device("meta"):
        names = list(WanTransformer3DModel(**CONFIG, in_channels=36).state_dict())
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    state: State = {}
    for name in names:
        tensor = tensors[original_name(name)]
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        state[name] = torch.from_numpy(values.copy()).reshape([int(n) for n in reversed(tensor.shape)])
    return state


def trained_state(path: Path) -> State:
    """Return the averaged weights of a training stage."""
    model = WanTransformer3DModel(**CONFIG, in_channels=36)
    load_average(path, {"transformer": model, "text_encoder": make_text_encoder()})
    return dict(model.state_dict())


def _models(checkpoints: DemoCheckpoints, files: dict[str, Path]) -> Wan22Models:
    return Wan22Models(folder=str(checkpoints.a14b), high_noise=files["high"], low_noise=files["low"])
