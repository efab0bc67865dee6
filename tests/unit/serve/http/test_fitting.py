"""`limits.oversize: fit` lowers what is too large, keeps shapes, and leaves the rest alone."""

from typing import Any

import pytest

from serve.config import Limits
from serve.http.fitting import fit

DEMO = Limits(max_width=256, max_height=256, max_pixels=65536, max_frames=33, max_steps=30)


def fitted(**sizes: Any) -> dict[str, int]:
    return fit({"width": 128, "height": 128, "num_frames": 17, "steps": 12, **sizes}, DEMO)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ({}, {}),
        ({"width": 832, "height": 480}, {"width": 256, "height": 144}),
        ({"width": 480, "height": 832}, {"width": 144, "height": 256}),
        ({"width": "832", "height": "480"}, {"width": 256, "height": 144}),
        ({"width": 256, "height": 256}, {}),
        ({"width": 10_000, "height": 16}, {"width": 256}),
        ({"width": 1000, "height": 1000}, {"width": 256, "height": 256}),
        ({"num_frames": 81}, {"num_frames": 33}),
        ({"steps": 50}, {"steps": 30}),
        ({"num_frames": 33.0, "steps": 30}, {}),
    ],
)
def test_what_is_too_large_is_lowered(sizes: dict[str, Any], expected: dict[str, int]) -> None:
    assert fitted(**sizes) == expected


def test_the_pixels_of_a_frame_count_too() -> None:
    limits = Limits(max_width=1280, max_height=1280, max_pixels=1280 * 720)
    lowered = fit({"width": 1280, "height": 1280}, limits)
    assert lowered["width"] == lowered["height"]
    assert lowered["width"] * lowered["height"] <= limits.max_pixels


@pytest.mark.parametrize("value", [0, -832, 832.5, True, None, "wide", "", [832], 1e12, 10**400, "nan"])
def test_what_is_no_size_is_left_to_be_refused(value: object) -> None:
    assert fitted(width=value) == {}
    assert fitted(steps=value) == {}
