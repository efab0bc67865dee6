"""What a caller sends as `acceleration`: a method, an object with its settings, or a profile.

A profile is a name for one of the others. Whatever is sent becomes a method with its settings.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from deployments.wire import Acceleration

METHODS: tuple[str, ...] = get_args(Acceleration)
MAX_TEXT_CHARS = 1000
"""Length of an object that a form sends as text; a longer one cannot be meant."""
_KEYS_TEXT = "any of `method`, `every` and `guidance_until`"
KEYS = ("method", "every", "guidance_until")
MAX_EVERY = 6


@dataclass(frozen=True, kw_only=True)
class Choice:
    """An acceleration in full."""

    method: Acceleration = "none"
    every: int = 0
    """With `cache`: the interval of the steps that are computed; 0 leaves that to the model."""
    guidance_until: float = 1.0
    """Share of the denoise steps after which no pass without the prompt runs, over 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A choice with a name, and what was measured of it."""

    choice: Choice
    what: str
    faster: str
    near: str

    def describe(self) -> dict[str, Any]:
        """Return what /limits says."""
        return {**asdict(self.choice), "what": self.what, "faster": self.faster, "near": self.near}


_JUDGED = "to the exact videos of the demo's Wan26, before its last training; 24 prompts with 20 seeds each, 12 steps"
PROFILES: Mapping[str, Profile] = {
    "exact": Profile(choice=Choice(), what="Every step is computed.", faster="1", near="The same pixels for the same seed."),
    "balanced": Profile(
        choice=Choice(method="cache"),
        what="Steps that would change little reuse the velocity of an earlier one.",
        faster="1.5 times fewer forward passes",
        near=f"PSNR of 40.2 dB (worst 23.0) {_JUDGED}",
    ),
    "fast": Profile(
        choice=Choice(method="cache", every=3),
        what="After the first third of the steps, one in three is computed.",
        faster="2.0 times fewer forward passes",
        near=f"PSNR of 32.6 dB (worst 21.5) {_JUDGED}",
    ),
    "fastest": Profile(
        choice=Choice(method="distilled"),
        what="Another model, trained to need few steps and no guidance; refused if none is configured.",
        faster="6 times fewer forward passes in the demo, 15 times with 30 steps",
        near=f"PSNR of 25.1 dB (worst 7.5) {_JUDGED}",
    ),
}
"""The profiles by name. benchmarks/acceleration.py measures them."""


def read_choice(value: object) -> Choice:
    """Return the acceleration that a caller asks for.

    Raises ``ValueError`` with a sentence for the caller if ``value`` is none.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):  # an object in a form
        value = _parse(value)
    if isinstance(value, Mapping):
        return _read_object(value)
    if isinstance(value, str) and value in PROFILES:
        return PROFILES[value].choice
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
        raise ValueError(f"has an unknown key, `{unknown[0]}`; send {_KEYS_TEXT}")
    choice = Choice(
        method=_read_method(value.get("method", "none")),
        every=_read_every(value["every"]) if "every" in value else 0,
        guidance_until=_read_share(value.get("guidance_until", 1)),
    )
    if choice.every and choice.method != "cache":
        raise ValueError("`every` needs `method` to be `cache`")
    if choice.method == "distilled" and choice.guidance_until < 1:
        raise ValueError("a distilled model runs without guidance: leave `guidance_until` out")
    return choice


def _read_method(value: object) -> Acceleration:
    for method in get_args(Acceleration):
        if value == method:
            return method  # type: ignore[no-any-return]
    names = ", ".join(f"'{name}'" for name in (*PROFILES, *METHODS))
    raise ValueError(f"must be one of {names}, or an object with {_KEYS_TEXT}")


def _read_every(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 2 <= value <= MAX_EVERY:
        raise ValueError(f"`every` must be a whole number from 2 to {MAX_EVERY}, the interval of the steps that are computed")
    return value


def _read_share(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1:
        raise ValueError("`guidance_until` must be a number over 0 and up to 1, the share of the steps that are guided")
    return float(value)


JSON_SCHEMA = {
    "oneOf": [
        {"type": "string", "enum": [*PROFILES, *METHODS]},
        {
            "type": "object",
            "properties": {
                "method": {"type": "string", "enum": list(METHODS), "default": "none"},
                "every": {
                    "type": "integer",
                    "minimum": 2,
                    "maximum": MAX_EVERY,
                    "description": "With `cache`: interval of the steps that are computed after the first third.",
                },
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
