import pytest

from serve.http.negotiation import best_media_type, choose_media_type, parse_preferences, parse_request_timeout
from serve.problems import Problem

OFFERED = ("image/webp", "video/mp4")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "image/webp"),
        ("", "image/webp"),
        ("  ", "image/webp"),
        ("*/*", "image/webp"),
        ("video/*", "video/mp4"),
        ("VIDEO/MP4", "video/mp4"),
        ("video/mp4;q=0.5, image/webp;q=0.4", "video/mp4"),
        ("video/mp4; Q = 0.5; level=1, image/webp;q=0.4", "video/mp4"),
        ("image/webp;q=0, */*", "video/mp4"),
        ("image/*;q=0.1, */*;q=0.5", "video/mp4"),
        ("*/*;q=0.1, image/webp;q=0.2", "image/webp"),
        ("video/mp4;q=0.5, image/webp;q=0.5", "image/webp"),
        ("text/html, */*;q=0.1", "image/webp"),
        ("video/mp4;level=1", "video/mp4"),
        ("application/json", None),
        ("image/webp;q=0", None),
        ("image/webp;q=1.2.3", None),
        ("image/webp, *", "image/webp"),
    ],
)
def test_accept_chooses_the_media_type(accept: str | None, chosen: str | None) -> None:
    if chosen is None:
        with pytest.raises(Problem) as refused:
            choose_media_type(accept, OFFERED)
        assert (refused.value.status, refused.value.slug) == (406, "not-acceptable")
        assert f"`{accept}`; this path offers image/webp, video/mp4" in refused.value.detail
    else:
        assert choose_media_type(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("image/gif", "image/gif"),
        ("image/*", "image/webp"),
        ("image/gif, image/*;q=0.9", "image/gif"),
        ("image/gif;q=0.9, image/webp;q=0.8, video/*;q=0.1", "image/gif"),
        ("image/gif;q=0.2, */*;q=0.1", "image/gif"),
        ("image/webp;q=0, image/gif;q=0.001", "image/gif"),
        ("image/gif;q=0, image/*", "image/webp"),
        ("application/json, image/gif;q=0", None),
    ],
)
def test_a_gif_is_sent_only_to_those_who_prefer_it(accept: str, chosen: str | None) -> None:
    assert best_media_type(accept, (*OFFERED, "image/gif")) == chosen


def test_a_long_accept_header_is_cut_in_the_detail() -> None:
    with pytest.raises(Problem) as refused:
        choose_media_type("x" * 10_000, OFFERED)
    assert len(refused.value.detail) < 200


def test_preferences_of_all_headers_are_read() -> None:
    assert parse_preferences([]) == {}
    assert parse_preferences(["respond-async, wait=10", 'Handling="Strict"; x=1']) == {
        "respond-async": "",
        "wait": "10",
        "handling": "strict",
    }


def test_the_first_of_two_equal_preferences_counts() -> None:
    assert parse_preferences(["handling=lenient", "handling=strict, , wait = 5"]) == {"handling": "lenient", "wait": "5"}


@pytest.mark.parametrize(("value", "seconds"), [(None, 1800), ("2.5", 2.5), (" 7 ", 7), ("9999", 1800), ("1e3", 1000)])
def test_a_request_may_shorten_its_timeout(value: str | None, seconds: float) -> None:
    assert parse_request_timeout(value, 1800) == seconds


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon", "inf", ""])
def test_a_timeout_that_is_not_positive_is_refused(value: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_request_timeout(value, 1800)
    assert refused.value.status == 422
    (error,) = refused.value.errors
    assert (error.field, error.source) == ("Request-Timeout", "header")
    assert error.detail == f"`{value}` must be a positive number of seconds"
