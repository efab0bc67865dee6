"""The field `loras`: what a caller may send, and what is refused with a sentence."""

from typing import Any

import pytest

from serve.pipelines.loras import read_loras

READ: list[tuple[Any, tuple[tuple[str, float], ...]]] = [
    ([], ()),
    ([{"name": "ink"}], (("ink", 1.0),)),
    ([{"name": "ink", "scale": 0.8}, {"name": "film", "scale": -1}], (("ink", 0.8), ("film", -1.0))),
    ({"name": "ink", "scale": 0}, (("ink", 0.0),)),
    ("ink", (("ink", 1.0),)),
    (["ink", "film"], (("ink", 1.0), ("film", 1.0))),
    ('[{"name": "ink", "scale": 0.5}, "film"]', (("ink", 0.5), ("film", 1.0))),
    (['{"name": "ink", "scale": 2}', '{"name": "film"}'], (("ink", 2.0), ("film", 1.0))),
]


@pytest.mark.parametrize(("value", "expected"), READ)
def test_names_and_scales_are_read(value: Any, expected: tuple[tuple[str, float], ...]) -> None:
    assert read_loras(value, most=4) == expected


REFUSED: list[tuple[Any, str]] = [
    (3, "must be an array of objects"),
    ("[{", "as JSON"),
    ("[" * 5_000, "has 5000 characters"),
    ([3], "number 1 must be an object with `name`"),
    ([["ink", 1]], "number 1 must be an object with `name`"),
    ([{"scale": 1}], "the `name` of number 1 must be a name that GET /loras lists"),
    ([{"name": ""}], "the `name` of number 1"),
    ([{"name": "x" * 101}], "the `name` of number 1"),
    ([{"name": 3}], "the `name` of number 1"),
    ([{"name": "ink", "path": "/etc"}], "number 1 has an unknown field, `path`; send `name` and `scale`"),
    ([{"name": "ink", "scale": "1"}], "the `scale` of `ink` must be a number from -4 to 4"),
    ([{"name": "ink", "scale": True}], "the `scale` of `ink`"),
    ([{"name": "ink", "scale": float("nan")}], "the `scale` of `ink`"),
    ([{"name": "ink", "scale": 4.1}], "the `scale` of `ink`"),
    (["ink", {"name": "ink"}], "`ink` was sent twice"),
    ("", "must be an array of objects"),
    (" ", "must be an array of objects"),
    (["a"] * 5, "5 LoRAs were sent; send at most 4"),
]


@pytest.mark.parametrize(("value", "message"), REFUSED)
def test_anything_else_is_refused_with_what_to_send(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_loras(value, most=4)
