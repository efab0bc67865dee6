"""Reads LoRA files: low-rank changes of a transformer's layers (Hu et al. 2021).

Trainers differ in how they name layers (as the original release or as diffusers, with a prefix, or
with underscores instead of dots), in how they name the two matrices, and in where they say by how
much the product is scaled: in an `alpha` beside them, in the header of the file, or in PEFT's
`adapter_config.json`. A kohya header's `ss_network_alpha` is not one of these places: kohya writes
each `alpha` beside the matrices, and a converter that leaves these out has multiplied them in and
kept the header.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from deployments.errors import CheckpointRefused
from deployments.lora_folder import PEFT_SETTINGS, PEFT_WEIGHTS
from deployments.lora_names import changed_part, check_parts, is_change
from deployments.video.checkpoints.config_values import check_values
from deployments.video.checkpoints.finite import require_finite
from deployments.video.checkpoints.names import transformer_name, unwrapped
from deployments.video.checkpoints.tensor_files import parse_object, read_files, read_metadata, read_shapes

MODULATION = "scale_shift_table"
Change = dict[str, torch.Tensor]
"""The change of one layer: `down` ``[rank, in]`` and `up` ``[out, rank]`` (scaled), `diff` of the
weight, `diff_b` of the bias. Those of a convolution have its kernel behind. All are floating point.
"""

_SCALED = ("up", "up_bias")
_MODELS = ("transformer", "transformer_2")
"""What diffusers calls the model, or the experts, in the settings of an adapter."""
_PREFIXES = (
    "base_model.model.",
    "model.diffusion_model.",
    "diffusion_model.",
    "transformer.",
    "pipe.dit.",
    "unet.",
    "dit.",
    "model.",
    "module.",
    "_orig_mod.",
)
_FLAT_PREFIX = re.compile(r"^(lora_unet_+|lora_transformer_+|lora_dit_+|lycoris_+)(?!.*\.)")
"""VideoX-Fun writes two underscores before the name."""
_DOTTED = (
    (r"^(vace_blocks|blocks)_(\d+)_", r"\1.\2."),
    (r"(^|\.)(self_attn|cross_attn|attn1|attn2)_", r"\1\2."),
    (r"\.to_out_(\d)$", r".to_out.\1"),
    (r"(^|\.)ffn_net_0_proj$", r"\1ffn.net.0.proj"),
    (r"(^|\.)ffn_net_2$", r"\1ffn.net.2"),
    (r"(^|\.)ffn_(\d)$", r"\1ffn.\2"),
    (r"^(time_embedding|text_embedding|time_projection)_(\d)$", r"\1.\2"),
    (r"^img_emb_proj_(\d)$", r"img_emb.proj.\1"),
    (r"^head_head$", "head.head"),
    (r"^condition_embedder_(time|text)_embedder_linear_(\d)$", r"condition_embedder.\1_embedder.linear_\2"),
    (r"^condition_embedder_time_proj$", "condition_embedder.time_proj"),
    (r"^condition_embedder_image_embedder_ff_net_0_proj$", "condition_embedder.image_embedder.ff.net.0.proj"),
    (r"^condition_embedder_image_embedder_ff_net_2$", "condition_embedder.image_embedder.ff.net.2"),
)
"""Where the dots of a layer's name were, in the names of both layouts."""
_IN_HEADER = ("lora_adapter_metadata", "lora_config")
"""Where a header has all settings of an adapter as one JSON object: diffusers', finetrainers'."""
_FLAT_SETTINGS = ("lora_alpha", "alpha_pattern", "use_dora", "use_rslora", "init_lora_weights")
"""The settings that are read where a header has a text for each."""
_CHANGE_BASE = ("pissa", "olora", "corda", "loftq")
"""Ways to begin a training in which the adapter takes a part out of the model's own weights."""
_NONE = ("", "None")
_ORIGINAL = re.compile(
    r"(^|\.)(self_attn|cross_attn|ffn\.[02]|time_embedding|text_embedding|time_projection|head|img_emb|modulation"
    r"|before_proj|after_proj)(\.|$)"
)
_DIFFUSERS = re.compile(r"(^|\.)(attn1|attn2|ffn\.net|condition_embedder|proj_out|proj_in|scale_shift_table)(\.|$)")


@dataclass(frozen=True)
class LoraFile:
    """The changes in a LoRA file, by diffusers' names of the layers."""

    path: Path
    changes: Mapping[str, Change]


def is_lora(path: Path) -> bool:
    """Return whether ``path`` is a safetensors file with changes of a model, such as low-rank ones.

    Raises ``CheckpointRefused`` for a safetensors file that cannot be read.
    """
    if path.suffix != ".safetensors":
        return False
    return any(is_change(name) for name in read_shapes([path]))


def read_lora(path: Path) -> LoraFile:
    """Return the changes in ``path``, on the CPU.

    Raises ``CheckpointRefused`` for a file with changes of another kind, incomplete ones, or
    numbers that are not finite.
    """
    stored = read_files(path, [path])  # no index beside it counts
    require_finite(path, stored.tensors)
    split = {key: _split(path, key) for key in stored.tensors}
    is_original = any(_ORIGINAL.search(name) and not _DIFFUSERS.search(name) for name, _ in split.values())
    changes: dict[str, Change] = {}
    stored_names: dict[str, str] = {}
    for key, (stored_name, part) in split.items():
        name = stored_name
        if is_original and not _DIFFUSERS.search(name):
            # The conversion replaces parts of names only where a dot follows.
            name = transformer_name(f"{name}.").removesuffix(".")
        change = changes.setdefault(name, {})
        if part in change:
            raise CheckpointRefused(f"{path}: `{name}` is changed twice, the second time by `{key}`")
        change[part] = _checked(path, key, part=part, tensor=stored.tensors[key])
        stored_names[name] = stored_name
    scales = _Scales.of(path)
    return LoraFile(
        path,
        {
            name: _scaled(path, name, stored_name=stored_names[name], change=change, scales=scales)
            for name, change in changes.items()
        },
    )


def _split(path: Path, key: str) -> tuple[str, str]:
    """Return the layer that a tensor changes, and which part of its change the tensor is."""
    try:
        name, part = changed_part(key)
    except ValueError as error:
        raise CheckpointRefused(f"{path}: {error}") from None
    return _without_prefixes(name), part


def _without_prefixes(name: str) -> str:
    name = unwrapped(name, _PREFIXES)
    if (flat := _FLAT_PREFIX.match(name)) is not None:
        name = name.removeprefix(flat[0])
        for pattern, replacement in _DOTTED:
            name = re.sub(pattern, replacement, name)
    return name


def _checked(path: Path, key: str, part: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return ``tensor``, which is ``part`` of a change; refuse one of another dtype or shape."""
    kind, shape = str(tensor.dtype).removeprefix("torch."), list(tensor.shape)
    if part == "alpha":
        if tensor.numel() != 1 or tensor.is_complex():
            raise CheckpointRefused(f"{path}: `{key}` is {kind} {shape}; an alpha must be one number")
        return tensor.reshape(())
    if not tensor.dtype.is_floating_point:
        raise CheckpointRefused(f"{path}: `{key}` is {kind}; the changes of a LoRA must be floating point")
    if tensor.numel() == 0:
        raise CheckpointRefused(f"{path}: `{key}` is empty, with the shape {shape}")
    if part in ("down", "up") and tensor.ndim < 2:
        raise CheckpointRefused(f"{path}: `{key}` has the shape {shape}; a matrix of a LoRA has two dimensions or more")
    return tensor


def _scaled(path: Path, name: str, *, stored_name: str, change: Change, scales: "_Scales") -> Change:
    """Return ``change`` with its scale in ``up``; refuse one that is incomplete."""
    try:
        check_parts(name, change)
    except ValueError as error:
        raise CheckpointRefused(f"{path}: {error}") from None
    down, up = change.get("down"), change.get("up")
    if down is None or up is None:
        return change
    if "diff" in change:
        raise CheckpointRefused(f"{path}: `{name}` is changed twice, by `diff` and by a low-rank product")
    if "diff_b" in change and "up_bias" in change:
        raise CheckpointRefused(f"{path}: the bias of `{name}` is changed twice, by `diff_b` and by the bias of a matrix")
    if len(down) != up.shape[1]:
        raise CheckpointRefused(
            f"{path}: the matrices of `{name}` are {list(down.shape)} and {list(up.shape)}, which do not match"
        )
    alpha = float(change["alpha"].item()) if "alpha" in change else None
    scale = scales.scale((stored_name, name), len(down), alpha)
    scaled = {part: tensor if scale == 1 else tensor.float() * scale for part, tensor in change.items() if part in _SCALED}
    require_finite(path, {f"{name}, scaled by {scale:g}": tensor for tensor in scaled.values()} if scale != 1 else {})
    rest = {part: tensor for part, tensor in change.items() if part not in ("alpha", *_SCALED)}
    # PEFT scales what the second matrix returns, and its bias is part of that.
    return {**rest, **{"diff_b" if part == "up_bias" else part: tensor for part, tensor in scaled.items()}}


@dataclass(frozen=True)
class _Scales:
    """What a file's header, or the configuration beside it, says of the scale of all changes."""

    alpha: float | None = None
    patterns: Mapping[str, float] | None = None
    """An alpha for layers whose name ends in a key, which may be a regular expression."""
    by_root: bool = False
    """Whether products are scaled by the root of the rank (rsLoRA)."""

    @classmethod
    def of(cls, path: Path) -> "_Scales":
        """Read the scales of the LoRA in ``path``; refuse DoRA, which needs more than a product."""
        settings = _adapter_settings(path)
        check_values(path, settings, dict.fromkeys(("use_dora", "use_rslora"), bool | None))
        if settings.get("use_dora"):
            raise CheckpointRefused(f"{path}: a DoRA, which is not supported; only LoRAs are")
        start = str(settings.get("init_lora_weights") or "").lower()
        if start.startswith(_CHANGE_BASE):
            raise CheckpointRefused(
                f"{path}: its training began by changing the model itself (`{start}`), which is not supported; convert it to a "
                "LoRA of the unchanged model"
            )
        patterns = settings.get("alpha_pattern") or {}
        try:
            numbers_of = {str(name): _number(value) for name, value in patterns.items()}
            found = cls(
                alpha=_number(settings.get("lora_alpha")),
                patterns={name: number for name, number in numbers_of.items() if number is not None},
                by_root=bool(settings.get("use_rslora")),
            )
        except (TypeError, ValueError, AttributeError, OverflowError):
            raise CheckpointRefused(f"{path}: an alpha in its adapter settings is not a number") from None
        numbers = [*(found.patterns or {}).values(), 0.0 if found.alpha is None else found.alpha]
        if not all(math.isfinite(number) for number in numbers):
            raise CheckpointRefused(f"{path}: an alpha in its adapter settings is NaN or infinite")
        return found

    def scale(self, names: tuple[str, ...], rank: int, alpha: float | None) -> float:
        """Return the factor of a layer's product.

        ``alpha`` is what the file has beside the matrices. Patterns may be for any of the layer's
        ``names``: that in the file, and that in diffusers.
        """
        if alpha is None:
            patterns = (self.patterns or {}).items()
            alpha = next((a for name in names for key, a in patterns if _matches(key, name)), self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.by_root else rank)


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(rf"(.*\.)?({pattern})", name) is not None
    except re.error:
        return name.endswith(pattern)


def _number(value: Any) -> float | None:
    """Return an alpha, or None for none, which headers of text write as `None` or leave empty."""
    if value in (None, *_NONE):
        return None
    if isinstance(value, bool):
        raise TypeError(value)
    return float(value)


def _adapter_settings(path: Path) -> dict[str, Any]:
    """Return the settings of the adapter, which trainers write to different places.

    Diffusers and finetrainers write an object into the header, PEFT a file beside the LoRA, and
    others one text for each setting into the header.
    """
    header = read_metadata(path)
    key = next((key for key in _IN_HEADER if header.get(key, "None") not in _NONE), None)
    if key is not None:
        return _without_model(parse_object(header[key], f"{path}: its adapter settings must be a JSON object, in `{key}`"))
    beside = path.with_name(PEFT_SETTINGS)
    if path.name == PEFT_WEIGHTS and beside.is_file():
        return parse_object(beside.read_bytes(), f"{path}: {PEFT_SETTINGS} beside it must be a JSON object")
    return {key: _parsed(text) for key, text in _without_model(header).items() if key in _FLAT_SETTINGS}


def _without_model(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without the name of the model, which is before each or around all."""
    inner = next((settings[model] for model in _MODELS if isinstance(settings.get(model), dict)), None)
    return {re.sub(rf"^(?:{'|'.join(_MODELS)})\.", "", key): value for key, value in (inner or settings).items()}


def _parsed(text: str) -> Any:
    """Return the value of a setting that is alone in a header, as Python or JSON writes it."""
    if text in _NONE:
        return None
    try:
        return json.loads({"True": "true", "False": "false"}.get(text, text))
    except (ValueError, RecursionError):
        return text
