"""Merges a LoRA into weights, as a LoRA is defined."""

from pathlib import Path
from typing import Any

from safetensors.torch import load_file


def merge(model: Any, path: Path) -> Any:
    """Add the LoRA in ``path`` to the weights of ``model``."""
    state = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    for name in {name.split(".lora_")[0] for name in state}:
        try:
            layer = model.get_submodule(name)
        except AttributeError:  # the text model has no control blocks
            continue
        layer.weight.data += state[f"{name}.lora_B.weight"] @ state[f"{name}.lora_A.weight"]
    return model
