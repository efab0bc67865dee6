"""Lowers a video that is larger than the limits to what they allow, if the operator wants that."""

from collections.abc import Iterator, Mapping

from serve.config import Limits
from serve.pipelines.fields import is_long_number

FITTED = ("width", "height", "num_frames", "steps")
"""The fields that are lowered. Lowering any other field would change the content, not just the size
or length."""
UNIT = 16
"""Pixels of which sides are multiples."""
SAME_SHAPE = 1.03
"""How many times one proportion may be another one that looks the same."""
AS_LARGE = 0.9
"""Share of the pixels of the largest video of a shape that is worth giving up for a nearer one."""
Size = tuple[int, int]
"""Width and height."""


def fit(sizes: Mapping[str, object], limits: Limits) -> dict[str, int]:
    """Return the new values of those of the fields ``FITTED`` in ``sizes`` that are too large.

    Width and height keep their proportion, as ``nearest_size`` says. A value that is not a whole
    number over 0 is left to be refused.
    """
    numbers = {name: number for name, value in sizes.items() if (number := _whole(value)) is not None}
    lowered = {}
    if "width" in numbers and "height" in numbers:
        asked = numbers["width"], numbers["height"]
        if asked[0] > limits.max_width or asked[1] > limits.max_height or asked[0] * asked[1] > limits.max_pixels:
            lowered["width"], lowered["height"] = nearest_size(asked, limits)
    most = {"num_frames": limits.max_frames, "steps": limits.max_steps}
    lowered |= {name: limit for name, limit in most.items() if numbers.get(name, 0) > limit}
    return {name: value for name, value in lowered.items() if value != numbers[name]}


def nearest_size(asked: Size, limits: Limits) -> Size:
    """Return the size within the limits, in multiples of 16, that stands for the ``asked`` one.

    No side grows. Among the sizes whose proportion differs by at most 3 %, those count that have at
    least 90 % of the pixels of the largest of them, and the one of the nearest proportion is used.
    Where no size is that near, the one of the nearest proportion of all is. If two are equally
    near, it is the larger one.
    """
    sizes = {size: _difference(size, asked) for size in _candidates(asked, limits)}
    near = {size: difference for size, difference in sizes.items() if difference <= SAME_SHAPE}
    largest = max((width * height for width, height in near), default=0)
    large = {(width, height): near[width, height] for width, height in near if width * height >= AS_LARGE * largest}
    best = large or sizes
    return min(best, key=lambda size: (best[size], -size[0] * size[1]))


def _candidates(asked: Size, limits: Limits) -> Iterator[Size]:
    """Yield for each width the heights that keep the proportion, or the nearest ones."""
    widest, highest = (
        max(UNIT, min(side, most) // UNIT * UNIT)
        for side, most in zip(asked, (limits.max_width, limits.max_height), strict=True)
    )
    for width in range(UNIT, widest + 1, UNIT):
        most = min(highest, limits.max_pixels // width // UNIT * UNIT)
        if most:
            exact = width * asked[1] / asked[0]
            # Sides are bounded before they are walked through: a body may ask for any height.
            start, stop = (min(int(side) // UNIT, most // UNIT) for side in (exact / SAME_SHAPE, exact * SAME_SHAPE + UNIT))
            yield from {(width, max(UNIT, height * UNIT)) for height in range(start, stop + 1)}


def _difference(one: Size, other: Size) -> float:
    """Return how many times the wider proportion is the other one, at least 1."""
    proportion = one[0] * other[1] / (one[1] * other[0])
    return max(proportion, 1 / proportion)


def _whole(value: object) -> int | None:
    """Return a number as a body may have it, in JSON or in a form, if it is whole and over 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | str) or is_long_number(value):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    return int(number) if 0 < number < 1e9 and number.is_integer() else None
