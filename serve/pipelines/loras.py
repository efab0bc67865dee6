"""What a caller sends as `loras`: names of LoRAs, each with how much it counts."""

import json
from collections.abc import Mapping
from typing import Any

from deployments.lora_folder import MAX_NAME_CHARS

MAX_SCALE = 4.0
"""The largest scale, of either sign. Files are made for scales near 1."""
MAX_TEXT_CHARS = 4_000
"""Length of an array that a form sends as text; a longer one cannot be meant."""
Choices = tuple[tuple[str, float], ...]
"""Names and scales, in the order in which they were sent."""
_EXAMPLE = 'an array of objects such as {"name": "...", "scale": 0.8}'


def read_loras(value: object, *, most: int) -> Choices:
    """Return the LoRAs that a caller asks for, of a model that accepts so many at ``most``.

    Raises ``ValueError`` with a sentence for the caller if ``value`` is not a list of them.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):  # JSON in a form
        value = _parse(value)
    if isinstance(value, Mapping) or (isinstance(value, str) and value.strip()):
        value = [value]
    if not isinstance(value, list | tuple):
        raise ValueError(f"must be {_EXAMPLE}")
    if len(value) > most:
        raise ValueError(f"{len(value)} LoRAs were sent; send at most {most}")
    choices = tuple(_read_one(item, number) for number, item in enumerate(value, 1))
    names = [name for name, _ in choices]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"`{name}` was sent twice; send it once")
    return choices


def _read_one(item: object, number: int) -> tuple[str, float]:
    if isinstance(item, str):  # a field that a form repeats: JSON, or the name alone
        item = _parse(item) if item.lstrip().startswith("{") else {"name": item}
    if not isinstance(item, Mapping):
        raise ValueError(f"number {number} must be an object with `name` and, if it is not 1, `scale`")
    if unknown := [str(key)[:50] for key in item if key not in ("name", "scale")]:
        raise ValueError(f"number {number} has an unknown field, `{unknown[0]}`; send `name` and `scale`")
    name, scale = item.get("name"), item.get("scale", 1.0)
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME_CHARS:
        raise ValueError(f"the `name` of number {number} must be a name that GET /loras lists")
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not -MAX_SCALE <= scale <= MAX_SCALE:
        raise ValueError(f"the `scale` of `{name}` must be a number from -{MAX_SCALE:g} to {MAX_SCALE:g}")
    return name, float(scale)


def _parse(text: str) -> object:
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError(f"the text has {len(text)} characters; at most {MAX_TEXT_CHARS} are accepted")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError(f"must be {_EXAMPLE}, as JSON") from None


def json_schema(most: int) -> dict[str, Any]:
    """Return the JSON Schema of the field for a model that accepts so many LoRAs at ``most``."""
    name = {"type": "string", "minLength": 1, "maxLength": MAX_NAME_CHARS}
    scale = {"type": "number", "minimum": -MAX_SCALE, "maximum": MAX_SCALE, "default": 1}
    item = {
        "type": "object",
        "properties": {"name": name, "scale": scale},
        "required": ["name"],
        "additionalProperties": False,
    }
    return {"type": "array", "maxItems": most, "items": item}
