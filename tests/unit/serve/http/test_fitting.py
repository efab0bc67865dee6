"""`limits.oversize: fit` lowers what is too large, keeps shapes, and leaves the rest alone."""

import itertools
from fractions import Fraction
from typing import Any

import pytest

from serve.config import Limits
from serve.http import fitting
from serve.http.fitting import fit, nearest_size

DEMO = Limits(max_width=256, max_height=256, max_pixels=65536, max_frames=17, max_steps=30)


def fitted(**sizes: Any) -> dict[str, int]:
    return fit({"width": 128, "height": 128, "num_frames": 17, "steps": 12, **sizes}, DEMO)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, {}),
        ({"width": 832, "height": 480}, {"width": 256, "height": 144}),
        ({"width": 480, "height": 832}, {"width": 144, "height": 256}),
        ({"width": "832", "height": "480"}, {"width": 256, "height": 144}),
        ({"width": 1280, "height": 704}, {"width": 256, "height": 144}),
        ({"width": 1216, "height": 832}, {"width": 256, "height": 176}),
        ({"width": 768, "height": 512}, {"width": 240, "height": 160}),
        ({"width": 1920, "height": 800}, {"width": 224, "height": 96}),
        ({"width": 1000, "height": 80}, {"width": 208, "height": 16}),
        ({"width": 257, "height": 100}, {"width": 240, "height": 96}),
        ({"width": 256, "height": 256}, {}),
        ({"width": 10_000, "height": 16}, {"width": 256}),
        ({"width": 1000, "height": 1000}, {"width": 256, "height": 256}),
        ({"num_frames": 81}, {"num_frames": 17}),
        ({"steps": 50}, {"steps": 30}),
        ({"num_frames": 17.0, "steps": 30}, {}),
    ],
)
def test_what_is_too_large_is_lowered(sizes: dict[str, Any], expected: dict[str, int]) -> None:
    assert fitted(**sizes) == expected


@pytest.mark.parametrize("asked", [(256, 10**9 - 1), (10**9 - 1, 256), (10**9 - 1, 10**9 - 1), (1, 10**9 - 1)])
def test_sides_of_any_size_take_no_more_work(asked: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller can send such sides before anything else is checked."""
    monkeypatch.setattr(fitting, "range", bounded_range, raising=False)
    width, height = nearest_size(asked, DEMO)
    assert 16 <= width <= 256
    assert 16 <= height <= 256


def bounded_range(start: int, stop: int, step: int = 1) -> range:
    """Return a range, but none that takes long to walk through."""
    numbers = range(start, stop, step)
    assert len(numbers) <= 256 // 16
    return numbers


def test_the_pixels_of_a_frame_count_too() -> None:
    limits = Limits(max_width=1280, max_height=1280, max_pixels=1280 * 720)
    lowered = fit({"width": 1280, "height": 1280}, limits)
    assert lowered["width"] == lowered["height"]
    assert lowered["width"] * lowered["height"] <= limits.max_pixels


def is_as_near_as(size: tuple[int, int], other: tuple[int, int], asked: tuple[int, int]) -> bool:
    def difference(one: tuple[int, int]) -> float:
        share = Fraction(one[0] * asked[1], one[1] * asked[0])
        return float(max(share, 1 / share))

    return difference(size) <= difference(other)


@pytest.mark.parametrize("limits", [DEMO, Limits(), Limits(max_width=640, max_pixels=200_000)])
def test_no_size_is_both_nearer_in_shape_and_as_large(limits: Limits) -> None:
    """All sizes within the limits are looked at, not only those that the search goes through."""
    sides = range(16, max(limits.max_width, limits.max_height) + 1, 16)
    within = [
        (width, height)
        for width, height in itertools.product(sides, sides)
        if width <= limits.max_width and height <= limits.max_height and width * height <= limits.max_pixels
    ]
    for asked in itertools.product(range(100, 4000, 787), range(100, 4000, 589)):
        chosen = nearest_size(asked, limits)
        assert chosen in within, asked
        better = [
            size
            for size in within
            if size[0] <= asked[0] and size[1] <= asked[1]
            if size[0] * size[1] > chosen[0] * chosen[1] and is_as_near_as(size, chosen, asked)
        ]
        assert better == [], (asked, chosen)


def test_the_shape_is_kept_to_four_percent_and_half_the_pixels_at_least_unless_it_is_narrow() -> None:
    for asked in itertools.product(range(272, 2000, 48), range(272, 2000, 64)):
        if 1 / 3 <= asked[0] / asked[1] <= 3:
            size = nearest_size(asked, DEMO)
            proportion = size[0] * asked[1] / (size[1] * asked[0])
            assert 1 / 1.04 <= proportion <= 1.04, (asked, size)
            largest = 256 * 256 * min(asked[0] / asked[1], asked[1] / asked[0])
            assert size[0] * size[1] >= largest / 2, (asked, size)


@pytest.mark.parametrize("value", [0, -832, 832.5, True, None, "wide", "", [832], 1e12, 10**400, "nan"])
def test_what_is_no_size_is_left_to_be_refused(value: object) -> None:
    assert fitted(width=value) == {}
    assert fitted(steps=value) == {}
