"""What a caller sends as `acceleration`: a method, an object with its settings, or a profile.

A profile is a name for one of the others. Whatever is sent becomes a method and the share of the
denoise steps that are guided.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

from deployments.wire import Acceleration

METHODS: tuple[str, ...] = get_args(Acceleration)
MAX_TEXT_CHARS = 1000
"""Length of an object that a form sends as text; a longer one cannot be meant."""
KEYS = ("method", "guidance_until")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An acceleration in full."""

    method: Acceleration = "none"
    guidance_until: float = 1.0
    """Share of the denoise steps after which no pass without the prompt runs, over 0 to 1."""


def read_choice(value: object) -> Choice:
    """Return the acceleration that a caller asks for.

    Raises ``ValueError`` with a sentence for the caller if ``value`` is none.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):  # an object in a form
        value = _parse(value)
    if isinstance(value, Mapping):
        return _read_object(value)
    return Choice(method=_read_method(value))


def _parse(text: str) -> object:
    if len(text) > MAX_TEXT_CHARS:
        raise ValueError(f"the object has {len(text)} characters; at most {MAX_TEXT_CHARS} are accepted")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError('must be a JSON object, such as {"guidance_until": 0.5}') from None


def _read_object(value: Mapping[Any, Any]) -> Choice:
    if unknown := [str(key)[:50] for key in value if key not in KEYS]:
        raise ValueError(f"has no `{unknown[0]}`; send `method`, `guidance_until` or both")
    choice = Choice(
        method=_read_method(value.get("method", "none")), guidance_until=_read_share(value.get("guidance_until", 1))
    )
    if choice.method == "distilled" and choice.guidance_until < 1:
        raise ValueError("a distilled model runs without guidance: leave `guidance_until` out")
    return choice


def _read_method(value: object) -> Acceleration:
    for method in get_args(Acceleration):
        if value == method:
            return method  # type: ignore[no-any-return]
    names = ", ".join(f"'{name}'" for name in METHODS)
    raise ValueError(f"must be one of {names}, or an object with `method`, `guidance_until` or both")


def _read_share(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError("`guidance_until` must be a number over 0 and up to 1, the share of the steps that are guided")
    return float(value)


JSON_SCHEMA = {
    "oneOf": [
        {"type": "string", "enum": list(METHODS)},
        {
            "type": "object",
            "properties": {
                "method": {"type": "string", "enum": list(METHODS), "default": "none"},
                "guidance_until": {
                    "type": "number",
                    "exclusiveMinimum": 0,
                    "maximum": 1,
                    "default": 1,
                    "description": "Share of the denoise steps after which no pass without the prompt runs.",
                },
            },
            "additionalProperties": False,
        },
    ]
}
"""The JSON Schema of the field."""
