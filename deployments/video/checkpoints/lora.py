"""LoRA files: low-rank changes of a transformer's layers (Hu et al. 2021).

Files may use the names of the original release or of diffusers, and `lora_down` and `lora_up` with
`alpha`, or `lora_A` and `lora_B`. `diff`, `diff_b` and `diff_m` are full differences of a weight, a
bias and a modulation. The transformer's weights are unchanged, plain or quantised: the product with
the two narrow matrices is added to the output of the layer.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from deployments.errors import CheckpointRefused
from deployments.video.kernels.layers import with_layers

ORIGINAL, DIFFUSERS = "diffusion_model.", "transformer."
_PARTS = {
    ".lora_down.weight": "down",
    ".lora_A.weight": "down",
    ".lora_up.weight": "up",
    ".lora_B.weight": "up",
    ".lora_B.bias": "diff_b",
    ".alpha": "alpha",
    ".diff": "diff",
    ".diff_b": "diff_b",
    ".diff_m": "diff",
}
MODULATION = "scale_shift_table"
Change = dict[str, torch.Tensor]
"""The change of one layer: its tensors by the values of ``_PARTS``."""


def is_lora(path: Path) -> bool:
    """Return whether ``path`` is a safetensors file with low-rank changes.

    Raises ``CheckpointRefused`` for a safetensors file that cannot be read.
    """
    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as tensors:
            return any(".lora_" in name for name in tensors.keys())  # noqa: SIM118
    except (SafetensorError, OSError) as e:
        raise CheckpointRefused(f"{path}: not a readable safetensors file, perhaps truncated ({e})") from e


def with_lora(transformer: Any, path: Path, dtype: torch.dtype) -> Any:
    """Return a shallow copy of ``transformer`` with the changes in ``path``, computed in ``dtype``.

    The copy shares the weights, and the original is unchanged. Raises ``CheckpointRefused`` for an
    incomplete change, a change of an unknown kind or of the wrong shape, and for a change of a
    layer that the transformer does not have.
    """
    # A fast block wraps the original one as its child `block`.
    layers = {f"{name}.".replace(".block.", ".").removesuffix("."): layer for name, layer in transformer.named_modules()}
    changed: dict[int, Any] = {}
    result = transformer
    for name, change in _read(path).items():
        owner, _, last = name.rpartition(".")
        if last == MODULATION and owner in layers:
            result = _with_modulation(path, name, result, owner=layers[owner], change=change)
        elif hasattr(layers.get(name), "weight"):
            changed[id(layers[name])] = _changed_layer(path, name, layers[name], change=change, dtype=dtype)
        else:
            raise CheckpointRefused(f"{path}: changes `{name}`, which this model does not have")
    return with_layers(result, lambda layer: changed.get(id(layer)))


def _read(path: Path) -> dict[str, Change]:
    changes: dict[str, Change] = {}
    for key, tensor in load_file(path).items():
        name, part = next(((key.removesuffix(end), part) for end, part in _PARTS.items() if key.endswith(end)), ("", ""))
        if key.endswith(".diff_m"):
            name += ".modulation"
        if name.startswith(DIFFUSERS):
            name = name.removeprefix(DIFFUSERS)
        elif name.startswith(ORIGINAL):
            # The conversion replaces parts of names only where a dot follows.
            (name,) = convert_wan_transformer_to_diffusers({f"{name.removeprefix(ORIGINAL)}.": None})
            name = name.removesuffix(".")
        else:
            raise CheckpointRefused(
                f"{path}: unknown tensor `{key}`; expected a name that begins with `{ORIGINAL}` or `{DIFFUSERS}` "
                f"and ends in one of {', '.join(_PARTS)}"
            )
        changes.setdefault(name, {})[part] = tensor
    return changes


def _with_modulation(path: Path, name: str, transformer: Any, *, owner: Any, change: Change) -> Any:
    table = getattr(owner, MODULATION)
    if "diff" not in change or change["diff"].shape != table.shape:
        found = ", ".join(f"`{part}` {list(tensor.shape)}" for part, tensor in change.items())
        raise CheckpointRefused(f"{path}: changes `{name}`, which is {list(table.shape)} in this model, by {found}")

    def replace(module: nn.Module) -> nn.Module | None:
        # The owner is found by its parameter, because a shallow copy may have taken its place.
        return _add_differences(module, {MODULATION: change["diff"]}) if _owns(module, table) else None

    return with_layers(transformer, replace)


def _owns(module: nn.Module, parameter: torch.Tensor) -> bool:
    return module._parameters.get(MODULATION) is parameter


def _changed_layer(path: Path, name: str, layer: Any, *, change: Change, dtype: torch.dtype) -> Any:
    weight, is_linear = layer.weight, isinstance(layer, nn.Linear)
    plain = weight.dtype.is_floating_point
    shape = (layer.out_features, layer.in_features) if is_linear else tuple(weight.shape)
    down, up = change.get("down"), change.get("up")
    if (down is None) != (up is None) or ("alpha" in change and down is None):
        raise CheckpointRefused(f"{path}: the change of `{name}` is incomplete; it has only {', '.join(sorted(change))}")
    added = change.get("diff") if up is None or down is None else torch.empty(len(up), down.shape[-1], device="meta")
    if "down" in change and "diff" in change:
        raise CheckpointRefused(f"{path}: `{name}` is changed twice, by `diff` and by a low-rank product")
    if added is not None and (tuple(added.shape) != shape or (up is not None and not is_linear)):
        raise CheckpointRefused(f"{path}: changes `{name}` by {list(added.shape)}, which is {list(shape)} in this model")
    if "diff_b" in change and (layer.bias is None or change["diff_b"].shape != layer.bias.shape):
        raise CheckpointRefused(f"{path}: changes the bias of `{name}` by {list(change['diff_b'].shape)}, which does not fit")
    layer = _add_differences(layer, {"weight": change.get("diff") if plain else None, "bias": change.get("diff_b")})
    compute = weight.dtype if plain else dtype
    if up is not None and down is not None:
        scale = change["alpha"].item() / len(down) if "alpha" in change else 1.0
        return LoraLinear(layer, down.to(weight.device, compute), (up.float() * scale).to(weight.device, compute))
    if "diff" in change and not plain:
        return LoraLinear(layer, change["diff"].to(weight.device, compute), None)
    return layer


def _add_differences(layer: Any, differences: Mapping[str, torch.Tensor | None]) -> Any:
    """Return a copy of ``layer`` with ``differences`` added to its parameters.

    If all of them are None, the result is ``layer`` itself.
    """
    parameters = {}
    for name, difference in differences.items():
        if difference is not None:
            old = getattr(layer, name)
            new = (old.float() + difference.to(old.device).float()).to(old.dtype)
            parameters[name] = nn.Parameter(new, requires_grad=False)
    if not parameters:
        return layer
    changed = copy.copy(layer)
    changed._parameters = layer._parameters | parameters
    return changed


class LoraLinear(nn.Module):
    """A linear layer with a change that is added to its output.

    ``down`` is ``[rank, in]`` and ``up`` is ``[out, rank]``; without ``up``, ``down`` is ``[out,
    in]``.
    """

    def __init__(self, linear: Any, down: torch.Tensor, up: torch.Tensor | None) -> None:
        super().__init__()
        self.linear = linear
        self.down = nn.Parameter(down, requires_grad=False)
        self.up = None if up is None else nn.Parameter(up, requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``[..., in]`` to ``[..., out]``."""
        result: torch.Tensor = self.linear(x)
        narrow = F.linear(x, self.down)
        if self.up is None:
            return result.add_(narrow)
        result.view(-1, result.shape[-1]).addmm_(narrow.flatten(0, -2), self.up.T)
        return result
