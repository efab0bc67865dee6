"""What the name of a tensor in a LoRA file says: which layer it changes, and which part it is.

Trainers name layers and matrices differently. This needs no library for models.
"""

import re
from collections.abc import Collection, Iterable

_MATRIX = re.compile(
    r"\.(?:(?P<down>lora_down|lora_A|lora\.down|lora_linear_layer\.down)|(?P<up>lora_up|lora_B|lora\.up|lora_linear_layer\.up))"
    r"(?:(?:\.(?!weight$|bias$)[^.]+)?\.(?P<kind>weight|bias))?$"
)
"""The end of a matrix's name; PEFT puts the name of the adapter before the last part."""
_OTHERS = {".alpha": "alpha", ".diff": "diff", ".diff_b": "diff_b", ".diff_m": "diff"}
_ENDS = "`lora_down.weight` and `lora_up.weight`, `lora_A.weight` and `lora_B.weight`, `alpha`, `diff`, `diff_b` or `diff_m`"
_OF_BLOCK = re.compile(r"(?:^|\.|lora_(?:unet|transformer|dit)_+|lycoris_+)(?:vace_)?blocks[._]\d+[._]")
"""A block of Wan. Those of most other models are called otherwise, such as `transformer_blocks`."""
_OTHER_KINDS = (
    ".lokr_",
    ".hada_",
    ".oft_",
    ".boft_",
    ".dora_scale",
    ".lora_magnitude_vector",
    ".ia3_",
    ".glora_",
    ".vera_",
    ".set_weight",
    ".w_norm",
)


def is_change(key: str) -> bool:
    """Return whether a tensor of this name changes a model, as those of LoRAs and their like do."""
    others = (".diff", ".diff_b", ".diff_m")
    return _MATRIX.search(key) is not None or any(kind in key for kind in _OTHER_KINDS) or key.endswith(others)


def changed_part(key: str) -> tuple[str, str]:
    """Return the layer that a tensor changes, by its name in the file, and which part it is.

    Raises ``ValueError`` with a reason if no LoRA has a tensor of this name.
    """
    if any(kind in key for kind in _OTHER_KINDS):
        raise ValueError(
            f"unknown tensor `{key}`: it belongs to a DoRA, LoKr, LoHa or another relative of LoRA, which are not supported; "
            "only LoRAs are"
        )
    match = _MATRIX.search(key)
    if match is not None:
        name, is_bias = key[: match.start()], match["kind"] == "bias"
        if is_bias and match["down"]:
            raise ValueError(f"unknown tensor `{key}`; the narrow side of a LoRA has no bias")
        return name, "up_bias" if is_bias else "down" if match["down"] else "up"
    end = next((end for end in _OTHERS if key.endswith(end)), None)
    if end is None:
        raise ValueError(f"unknown tensor `{key}`; expected a name that ends in {_ENDS}")
    return key.removesuffix(end) + (".modulation" if end == ".diff_m" else ""), _OTHERS[end]


def is_of_block(layer: str) -> bool:
    """Return whether a layer is one of a block of Wan, whatever stands before its name."""
    return _OF_BLOCK.search(f"{layer}.") is not None


def check_names(keys: Iterable[str]) -> None:
    """Raise ``ValueError`` with a reason if tensors of these names are not a whole LoRA for Wan."""
    parts: dict[str, set[str]] = {}
    for key in keys:
        name, part = changed_part(key)
        parts.setdefault(name, set()).add(part)
    if not parts:
        raise ValueError("it has no tensors")
    for name, found in parts.items():
        check_parts(name, found)
    if not any(is_of_block(name) for name in parts):
        raise ValueError(f"it is of another model than Wan: it changes `{min(parts)}`, and no block of Wan")


def check_parts(name: str, found: Collection[str]) -> None:
    """Raise ``ValueError`` if the parts ``found`` of the change of a layer are only some of it."""
    if ("down" in found) != ("up" in found) or ("down" not in found and ("alpha" in found or "up_bias" in found)):
        raise ValueError(f"the change of `{name}` is incomplete; it has only {', '.join(sorted(found))}")
