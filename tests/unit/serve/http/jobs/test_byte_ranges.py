import pytest

from serve.http.jobs.byte_ranges import parse_range
from serve.problems import Problem

DATA = bytes(range(100))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", DATA[:1]),
        ("bytes=10-19", DATA[10:20]),
        ("bytes=90-", DATA[90:]),
        ("bytes=90-5000", DATA[90:]),
        ("bytes=-7", DATA[-7:]),
        ("bytes=-5000", DATA),
        ("BYTES = 10-19 ", DATA[10:20]),
        ("bytes=500-600, 10-19", DATA[10:20]),
    ],
)
def test_one_range_is_a_part(header: str, expected: bytes) -> None:
    part = parse_range(header, len(DATA))
    assert part is not None
    assert DATA[part.start : part.end] == expected
    assert part.content_range == f"bytes {part.start}-{part.end - 1}/100"


@pytest.mark.parametrize(
    "header",
    [
        None,
        "bytes=0-9, 20-29",
        "bytes=20-10",
        "bytes=-",
        "bytes=",
        "bytes",
        "bytes=a-b",
        "lines=0-9",
        "bytes=1-2-3",
        "bytes=²-³",
    ],
)
def test_what_is_no_single_range_gets_the_whole_file(header: str | None) -> None:
    assert parse_range(header, len(DATA)) is None


def test_many_ranges_get_the_whole_file() -> None:
    assert parse_range("bytes=" + ",".join(["500-"] * 33), len(DATA)) is None


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-, 200-"])
def test_a_range_outside_of_the_file_is_refused_with_its_size(header: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_range(header, len(DATA))
    assert (refused.value.status, refused.value.headers) == (416, {"Content-Range": "bytes */100"})


def test_an_empty_file_has_no_range() -> None:
    with pytest.raises(Problem, match="has 0 bytes"):
        parse_range("bytes=0-", 0)
