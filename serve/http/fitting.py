"""Lowers a video that is larger than the limits to what they allow, if the operator wants that."""

from collections.abc import Mapping
from math import sqrt

from serve.config import Limits
from serve.pipelines.fields import is_long_number

FITTED = ("width", "height", "num_frames", "steps")
"""The fields that are lowered. Lowering any other field would change the content, not just the size
or length."""
UNIT = 16
"""Pixels of which sides are multiples."""


def fit(sizes: Mapping[str, object], limits: Limits) -> dict[str, int]:
    """Return the new values of those of the fields ``FITTED`` in ``sizes`` that are too large.

    Width and height keep their proportion, as nearly as multiples of 16 can. A value that is no
    whole number over 0 is left to be refused.
    """
    numbers = {name: number for name, value in sizes.items() if (number := _whole(value)) is not None}
    lowered = {}
    if "width" in numbers and "height" in numbers:
        width, height = numbers["width"], numbers["height"]
        share = min(limits.max_width / width, limits.max_height / height, sqrt(limits.max_pixels / (width * height)))
        if share < 1:
            lowered["width"], lowered["height"] = (
                max(UNIT, int(side * share + 1e-6) // UNIT * UNIT) for side in (width, height)
            )
    most = {"num_frames": limits.max_frames, "steps": limits.max_steps}
    lowered |= {name: limit for name, limit in most.items() if numbers.get(name, 0) > limit}
    return {name: value for name, value in lowered.items() if value != numbers[name]}


def _whole(value: object) -> int | None:
    """Return a number as a body may have it, in JSON or in a form, if it is whole and over 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or is_long_number(value):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if 0 < number < 1e9 and number.is_integer() else None
