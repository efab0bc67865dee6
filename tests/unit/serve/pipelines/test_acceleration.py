"""What callers send as `acceleration`, and what it stands for."""

import json

import pytest

from serve.pipelines.acceleration import METHODS, PROFILES, Choice, read_choice


@pytest.mark.parametrize("method", METHODS)
def test_a_method_may_be_a_name_or_in_an_object(method: str) -> None:
    assert read_choice(method) == read_choice({"method": method}) == read_choice(json.dumps({"method": method}))
    assert read_choice(method).method == method
    assert read_choice(method).guidance_until == 1


def test_an_object_may_end_guidance_early() -> None:
    assert read_choice({"guidance_until": 0.5}) == Choice(guidance_until=0.5)
    assert read_choice(' {"guidance_until": 0.25, "method": "cache"}') == Choice(method="cache", guidance_until=0.25)
    assert read_choice({"guidance_until": 1}) == Choice()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("warp", "'cache'"),
        (7, "'cache'"),
        (["cache"], "'cache'"),
        ({"method": ["cache"]}, "'cache'"),
        ({"method": None}, "'cache'"),
        ({"guidance": 0.5}, "has an unknown key, `guidance`"),
        ("quick", "'balanced', 'fast', 'fastest'"),
        ({"method": "balanced"}, "'cache'"),
        ({"every": 3}, "`every` needs `method` to be `cache`"),
        ({"method": "fp8", "every": 3}, "`every` needs `method` to be `cache`"),
        ({"method": "cache", "every": 1}, "from 2 to 6"),
        ({"method": "cache", "every": 7}, "from 2 to 6"),
        ({"method": "cache", "every": 2.5}, "from 2 to 6"),
        ({"method": "cache", "every": True}, "from 2 to 6"),
        ({"method": "cache", "every": None}, "from 2 to 6"),
        ({"guidance_until": 0}, "over 0 and up to 1"),
        ({"guidance_until": 1.01}, "over 0 and up to 1"),
        ({"guidance_until": True}, "over 0 and up to 1"),
        ({"guidance_until": "0.5"}, "over 0 and up to 1"),
        ({"guidance_until": float("nan")}, "over 0 and up to 1"),
        ({"guidance_until": 10**400}, "over 0 and up to 1"),
        ({"method": "distilled", "guidance_until": 0.5}, "a distilled model runs without guidance"),
        ("{", "must be a JSON object"),
        ('{"guidance_until": NaN}', "over 0 and up to 1"),
        ("{" * 999, "must be a JSON object"),
        ("{" + " " * 1000 + "}", "1002 characters"),
    ],
)
def test_anything_else_is_refused_with_a_reason(value: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_choice(value)


def test_a_profile_stands_for_a_choice_and_says_what_it_is() -> None:
    assert [*PROFILES] == ["exact", "balanced", "fast", "fastest"]
    assert read_choice("exact") == read_choice("none") == Choice()
    assert read_choice("fast") == read_choice({"method": "cache", "every": 3})
    assert read_choice("fastest").method == "distilled"
    for profile in PROFILES.values():
        described = profile.describe()
        assert all(described[key] for key in ("method", "what", "faster", "near"))
