"""Copies of a transformer with the changes of LoRAs.

The transformer's weights are unchanged, plain or quantised: what the two narrow matrices of a layer
add is computed with each call of it. Several LoRAs become one pair of wider matrices.
"""

import copy
import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from deployments.errors import CheckpointRefused
from deployments.video.checkpoints.lora_file import MODULATION, Change, LoraFile, is_lora, read_lora
from deployments.video.checkpoints.weights import skipped_names
from deployments.video.kernels.layers import with_layers
from deployments.video.kernels.lora_linear import LoraLinear

__all__ = ["Lora", "LoraLinear", "fit_lora", "is_lora", "read_lora", "signature", "with_lora", "with_loras"]

log = logging.getLogger(__name__)

_ABSENT = {
    "attention to an image": ("add_k_proj", "add_v_proj", "norm_added_k", "image_embedder"),
    "control video": ("vace_blocks", "vace_patch_embedding"),
}
"""Parts that not every Wan transformer has, by what they are for. Changes of them mean nothing to a
model without them."""


_FIRST = "patch_embedding"
_CHANNELS = {16, 36}
"""The input channels of the first layer of models for text, and for an image."""


@dataclass(frozen=True)
class Lora:
    """The changes of a LoRA that fit one transformer, in its dtypes and on its devices."""

    path: Path
    changes: Mapping[str, Change] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """The bytes of all tensors."""
        return sum(tensor.nbytes for change in self.changes.values() for tensor in change.values())


def with_lora(transformer: Any, path: Path, dtype: torch.dtype) -> Any:
    """Return a shallow copy of ``transformer`` with the changes in ``path``, computed in ``dtype``.

    The copy shares the weights, and the original is unchanged. Raises ``CheckpointRefused`` for an
    incomplete change, a change of an unknown kind or of the wrong shape, and for a change of a
    layer that the transformer does not have.
    """
    return with_loras(transformer, [(fit_lora(read_lora(path), transformer, dtype), 1.0)])


def fit_lora(file: LoraFile, transformer: Any, dtype: torch.dtype, device: torch.device | None = None) -> Lora:
    """Return the changes in ``file`` for ``transformer``, on ``device`` or where each layer is.

    Quantised layers compute in ``dtype``. Changes of parts that only other Wan models have are left
    out, and the log says so. Raises ``CheckpointRefused`` for changes that do not fit.
    """
    layers = _layers_of(transformer)
    dead = skipped_names(transformer, file.changes)
    skipped: dict[str, int] = {}
    fitted: dict[str, Change] = {}
    for name, change in file.changes.items():
        owner, _, last = name.rpartition(".")
        if name in dead:
            continue
        absent = _absent_part(name, layers) or _other_input(name, change, layers)
        if absent is not None:
            skipped[absent] = skipped.get(absent, 0) + 1
        elif last == MODULATION and isinstance(getattr(layers.get(owner), MODULATION, None), torch.Tensor):
            fitted[name] = _fitted_modulation(file.path, name, change, table=getattr(layers[owner], MODULATION), device=device)
        elif isinstance(getattr(_base(layers.get(name)), "weight", None), torch.Tensor):
            fitted[name] = _fitted(file.path, name, change, layer=_base(layers[name]), dtype=dtype, device=device)
        else:
            raise CheckpointRefused(f"{file.path}: changes `{name}`, which this model does not have")
    for part, count in skipped.items():
        log.info("%s: %d changes of the %s are left out, because the model has none or another", file.path, count, part)
    if dead:
        log.info("%s: %d changes are left out, of layers that no model uses, such as `%s`", file.path, len(dead), min(dead))
    if not fitted:
        raise CheckpointRefused(f"{file.path}: changes nothing that this model has")
    return Lora(file.path, fitted)


def with_loras(transformer: Any, loras: Sequence[tuple[Lora, float]]) -> Any:
    """Return a shallow copy of ``transformer`` with all of ``loras``, each times its factor.

    The copy shares the weights, and the original is unchanged. A LoRA with the factor 0 is left
    out.
    """
    loras = [(lora, factor) for lora, factor in loras if factor != 0]
    layers = _layers_of(transformer)
    replaced: dict[int, Any] = {}
    result = transformer
    for name in dict.fromkeys(name for lora, _ in loras for name in lora.changes):
        changes = [(lora.changes[name], factor) for lora, factor in loras if name in lora.changes]
        owner, _, last = name.rpartition(".")
        if last == MODULATION:
            result = _with_modulation(result, table=getattr(layers[owner], MODULATION), difference=_total(changes, "diff"))
        else:
            replaced[id(layers[name])] = _changed_layer(layers[name], changes)
    return with_layers(result, lambda layer: replaced.get(id(layer)))


def signature(transformer: Any) -> str:
    """Return a digest of all that ``fit_lora`` reads of ``transformer``.

    These are the names of its layers, with the shapes and dtypes of their parameters. The LoRAs
    that a copy has already make no difference. Changes that were fitted to one model are right for
    every other model with the same signature.
    """
    digest = hashlib.sha256(type(transformer).__name__.encode())
    inside: set[int] = set()
    for name, layer in _layers_of(transformer).items():
        if id(layer) in inside:
            continue
        base = layer
        while isinstance(base, LoraLinear):
            base = base.linear
            inside.add(id(base))
        width = (getattr(base, "in_features", None), getattr(base, "out_features", None))
        parameters = [(key, tuple(p.shape), p.dtype) for key, p in base._parameters.items() if p is not None]
        digest.update(repr((name, width, parameters)).encode())
    return digest.hexdigest()


def _layers_of(transformer: Any) -> dict[str, Any]:
    # A fast block wraps the original one as its child `block`.
    return {f"{name}.".replace(".block.", ".").removesuffix("."): layer for name, layer in transformer.named_modules()}


def _base(layer: Any) -> Any:
    """Return the layer inside those that LoRAs have been added to."""
    while isinstance(layer, LoraLinear):
        layer = layer.linear
    return layer


def _absent_part(name: str, layers: Iterable[str]) -> str | None:
    """Return what the layer ``name`` is for, if it is of a part that is not in ``layers``."""
    for part, words in _ABSENT.items():
        if any(word in name.split(".") for word in words):
            return None if any(word in layer.split(".") for layer in layers for word in words) else part
    return None


def _other_input(name: str, change: Change, layers: Mapping[str, Any]) -> str | None:
    """Return what the first layer is for, if ``change`` is for one with other inputs.

    LoRAs that distil text- or image-to-video have a difference of it, and are used for the other
    kind, too, whose first layer has other input channels.
    """
    weight = getattr(_base(layers.get(name)), "weight", None)
    matrix = change.get("diff", change.get("down"))
    if name != _FIRST or matrix is None or not isinstance(weight, torch.Tensor) or matrix.ndim != weight.ndim:
        return None
    channels = {matrix.shape[1], weight.shape[1]}
    return "input of an image" if channels == _CHANNELS and matrix.shape[2:] == weight.shape[2:] else None


def _fitted_modulation(path: Path, name: str, change: Change, *, table: torch.Tensor, device: torch.device | None) -> Change:
    if "diff" not in change or change["diff"].shape != table.shape:
        found = ", ".join(f"`{part}` {list(tensor.shape)}" for part, tensor in change.items())
        raise CheckpointRefused(f"{path}: changes `{name}`, which is {list(table.shape)} in this model, by {found}")
    return {"diff": change["diff"].to(device or table.device)}


def _fitted(path: Path, name: str, change: Change, *, layer: Any, dtype: torch.dtype, device: torch.device | None) -> Change:
    weight, is_linear = layer.weight, isinstance(layer, nn.Linear)
    where, compute = device or weight.device, weight.dtype if weight.dtype.is_floating_point else dtype
    shape = (layer.out_features, layer.in_features) if is_linear else tuple(weight.shape)
    down, up = change.get("down"), change.get("up")
    if (
        down is not None
        and up is not None
        and (up.numel() != len(up) * len(down) or (is_linear and (down.ndim, up.ndim) != (2, 2)))
    ):
        found = f"{list(down.shape)} and {list(up.shape)}"
        raise CheckpointRefused(f"{path}: the matrices of `{name}` are {found}, and the layer is {list(shape)} in this model")
    if down is not None and up is not None and not is_linear and down.ndim == len(shape):
        # A convolution is changed as a whole: it is small.
        product = (up.float().flatten(1) @ down.float().flatten(1)).reshape(len(up), *down.shape[1:])
        down = up = None
        change = {"diff": product, **{part: tensor for part, tensor in change.items() if part not in ("down", "up")}}
    added = change.get("diff") if up is None or down is None else torch.empty(len(up), down.shape[-1], device="meta")
    if added is not None and (tuple(added.shape) != shape or (up is not None and not is_linear)):
        raise CheckpointRefused(f"{path}: changes `{name}` by {list(added.shape)}, which is {list(shape)} in this model")
    bias = getattr(layer, "bias", None)
    if "diff_b" in change and (bias is None or change["diff_b"].shape != bias.shape):
        raise CheckpointRefused(f"{path}: changes the bias of `{name}` by {list(change['diff_b'].shape)}, which does not fit")
    # A whole difference of quantised weights stays beside them, and is computed like a matrix.
    computed = ("down", "up") if weight.dtype.is_floating_point else ("down", "up", "diff")
    return {part: tensor.to(where, compute if part in computed else torch.float32) for part, tensor in change.items()}


def _total(changes: Sequence[tuple[Change, float]], part: str) -> torch.Tensor | None:
    """Return the sum of the differences of one parameter, or None if there are none."""
    scaled = [change[part] * factor if factor != 1 else change[part] for change, factor in changes if part in change]
    return None if not scaled else sum(scaled[1:], scaled[0])


def _with_modulation(transformer: Any, *, table: torch.Tensor, difference: torch.Tensor | None) -> Any:
    def replace(module: nn.Module) -> nn.Module | None:
        # The owner is found by its parameter, because a shallow copy may have taken its place.
        return _add_differences(module, {MODULATION: difference}) if _owns(module, table) else None

    return with_layers(transformer, replace)


def _owns(module: nn.Module, parameter: torch.Tensor) -> bool:
    return module._parameters.get(MODULATION) is parameter


def _changed_layer(layer: Any, changes: Sequence[tuple[Change, float]]) -> Any:
    """Return ``layer``, which may have a LoRA already, with further changes."""
    before: list[tuple[torch.Tensor, torch.Tensor, float]] = []
    wholes: list[torch.Tensor] = []
    for added in _added_to(layer):
        if added.up is None:
            wholes.append(added.down)
        else:
            before.append((added.down, added.up, added.factor))
    base = _base(layer)
    whole = _total(changes, "diff")
    plain = base.weight.dtype.is_floating_point
    base = _add_differences(base, {"weight": whole if plain else None, "bias": _total(changes, "diff_b")})
    if whole is not None and not plain:
        wholes.append(whole)
    for difference in wholes:
        base = LoraLinear(base, difference, None)
    pairs = before + [(change["down"], change["up"], factor) for change, factor in changes if "up" in change]
    if not pairs:
        return base
    if len(pairs) == 1:
        return LoraLinear(base, *pairs[0])
    downs = torch.cat([down for down, _, _ in pairs])
    ups = torch.cat([up if factor == 1 else up * factor for _, up, factor in pairs], dim=1)
    return LoraLinear(base, downs, ups)


def _added_to(layer: Any) -> Iterator["LoraLinear"]:
    """Yield the changes around a layer, the outermost first."""
    while isinstance(layer, LoraLinear):
        yield layer
        layer = layer.linear


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
