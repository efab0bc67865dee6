"""Checks the values of a configuration before a library builds a model of them.

The libraries declare which type each value has, and most of them do not check it: a number that is
text would fail later, with an error that names neither the file nor the value.
"""

import math
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from huggingface_hub.errors import StrictDataclassError

from deployments.errors import CheckpointRefused

T = TypeVar("T")

_MISDECLARED: Mapping[str, Any] = {
    "out_channels": int | None,  # without it, a transformer has as many as `in_channels`
    "sigma_max": float | None,
    "shift_terminal": float | None,
    "solver_p": None,  # a scheduler, which no file can hold
}
"""The types of values that the libraries declare otherwise than they use them."""
TEXT_ENCODER: Mapping[str, Any] = {
    "vocab_size": int,
    "d_model": int,
    "d_kv": int,
    "d_ff": int,
    "num_layers": int,
    "num_decoder_layers": int | None,
    "num_heads": int,
    "relative_attention_num_buckets": int,
    "relative_attention_max_distance": int,
    "dropout_rate": float,
    "layer_norm_epsilon": float,
    "feed_forward_proj": str,
    "tie_word_embeddings": bool,
}
"""The types of UMT5's values. Transformers declares them in a form that cannot be asked."""
IMAGE_ENCODER: Mapping[str, Any] = {
    "hidden_size": int,
    "intermediate_size": int,
    "projection_dim": int,
    "num_hidden_layers": int,
    "num_attention_heads": int,
    "num_channels": int,
    "image_size": int,
    "patch_size": int,
    "hidden_act": str,
    "layer_norm_eps": float,
    "attention_dropout": float,
}
"""The values that are checked in the configuration of CLIP's vision model."""
_SIZE = int | dict[str, int]
IMAGE_PROCESSOR: Mapping[str, Any] = {
    **dict.fromkeys(("do_center_crop", "do_convert_rgb", "do_normalize", "do_rescale", "do_resize"), bool),
    **dict.fromkeys(("image_mean", "image_std"), list[float]),
    "crop_size": _SIZE,
    "size": _SIZE,
    "resample": int,
    "rescale_factor": float,
}
"""The values that are checked in the configuration of its preprocessor."""
INDEX: Mapping[str, Any] = {"_class_name": str, "transformer_2": list[str | None] | None}
"""The values that are checked in a checkpoint's index."""
_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}
_PLURALS = {int: "whole numbers", float: "numbers", bool: "values that are true or false", str: "texts"}

UNBUILT = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    OSError,
    RuntimeError,
    StrictDataclassError,
    TypeError,
    ValueError,
)
"""What the libraries raise for values that make no model. A checkpoint that we refuse is none."""


def types_of(kind: type[Any]) -> dict[str, Any]:
    """Return the types of the values that the class ``kind`` is built of, by their keys."""
    hints = get_type_hints(kind.__init__)
    return {key: hint for key, hint in hints.items() if key != "return"} | {
        key: hint for key, hint in _MISDECLARED.items() if key in hints
    }


def check_values(path: Path, config: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ``CheckpointRefused`` for a value in ``config``, read from ``path``, of another type.

    Keys that are not ``expected`` are passed over, as the libraries do.
    """
    for key, kind in expected.items():
        if key in config and not _fits(config[key], kind):
            raise CheckpointRefused(f"{path}: `{key}` is {_shown(config[key])}, but must be {_described(kind)}")


def built(path: Path, build: Callable[[], T]) -> T:
    """Return what ``build`` makes of the configuration in ``path``.

    Raises ``CheckpointRefused`` for values that have the right types and yet make no model.
    """
    try:
        return build()
    except UNBUILT as e:
        raise CheckpointRefused(f"{path}: nothing can be built of these values ({type(e).__name__}: {e})") from e


def _fits(value: Any, kind: Any) -> bool:
    """Return whether a value from a JSON file has a type, or whether that is none that JSON has."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is Literal:
        return any(value == one for one in arguments)
    if origin in (list, tuple):
        return isinstance(value, list) and all(_fits(one, arguments[0]) for one in value)
    if kind is None or kind is types.NoneType:
        return value is None
    if kind in (int, float) and isinstance(value, bool):
        return False
    if kind is float:
        return isinstance(value, int | float) and math.isfinite(value)
    if kind in (bool, int, str):
        return isinstance(value, kind)
    item = arguments[1] if origin is dict else Any
    # Of what is left, a file can only hold an object.
    return isinstance(value, dict) and all(item is Any or _fits(one, item) for one in value.values())


def _described(kind: Any) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(_described(one) for one in arguments))
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin in (list, tuple):
        return f"a list of {_PLURALS.get(arguments[0], 'texts or nulls')}"
    return _NAMES.get(types.NoneType if kind is None else kind, "an object")


def _shown(value: Any) -> str:
    """Return a value as JSON has it, in at most 60 characters."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
