"""The elements of a WebM file are found by their lengths, whatever these say."""

import io

import pytest

from serve.media.decode import elements as module
from serve.media.decode.elements import UNKNOWN, elements, segment_of
from tests.unit.serve.media.make_elements import CLUSTER, HEADER, SEGMENT, VOID, element


def found(data: bytes, start: int = 0, end: int | None = None) -> list[tuple[bytes, int, int]]:
    return list(elements(io.BytesIO(data), start, len(data) if end is None else end))


def segment(data: bytes, size: int | None = None) -> tuple[bytes, int, int] | None:
    return segment_of(io.BytesIO(data), len(data) if size is None else size)


def test_each_element_has_its_name_and_the_place_and_length_of_its_content() -> None:
    data = element(HEADER, b"webm") + element(VOID) + element(CLUSTER, b"frames")
    assert found(data) == [(HEADER, 12, 4), (VOID, 25, 0), (CLUSTER, 37, 6)]
    assert [data[start : start + length] for _, start, length in found(data)] == [b"webm", b"", b"frames"]


@pytest.mark.parametrize("length_bytes", range(1, 9))
def test_a_length_takes_one_to_eight_bytes(length_bytes: int) -> None:
    marked = ((1 << 7 * length_bytes) | 5).to_bytes(length_bytes, "big")
    data = VOID + marked + b"12345" + element(CLUSTER)
    assert found(data) == [(VOID, 1 + length_bytes, 5), (CLUSTER, 1 + length_bytes + 5 + 12, 0)]
    unknown = ((1 << 7 * length_bytes + 1) - 1).to_bytes(length_bytes, "big")
    assert found(VOID + unknown + b"12345") == [(VOID, 1 + length_bytes, UNKNOWN)]


@pytest.mark.parametrize("name", [b"\xec", b"\x42\x86", b"\x2a\xd7\xb1", b"\x1f\x43\xb6\x75"])
def test_a_name_takes_one_to_four_bytes(name: bytes) -> None:
    assert found(name + b"\x82ab") == [(name, len(name) + 1, 2)]


@pytest.mark.parametrize(
    "data", [b"", b"\0" * 12, b"\x08\1\1\1\1\x81a", HEADER[:2], HEADER, HEADER + b"\0", HEADER + b"\x01\0"]
)
def test_what_is_no_element_or_is_cut_ends_the_search(data: bytes) -> None:
    assert found(data) == []
    assert segment(data) is None
    assert found(element(VOID) + data) == [(VOID, 9, 0)]


def test_elements_in_an_element_are_found_up_to_its_end() -> None:
    inner = element(CLUSTER, b"one") + element(CLUSTER, b"two")
    data = element(SEGMENT, inner) + element(VOID)
    (_, start, length) = found(data)[0]
    assert [data[at : at + size] for _, at, size in found(data, start, start + length)] == [b"one", b"two"]
    assert len(found(data, start, start + length + 1)) == 3


def test_an_element_of_unknown_length_is_the_last() -> None:
    data = element(VOID) + element(CLUSTER, bytes(9), unknown=True) + element(CLUSTER)
    assert found(data) == [(VOID, 9, 0), (CLUSTER, 21, UNKNOWN)]


def test_the_segment_is_behind_the_header_and_what_else_stands_there() -> None:
    data = element(HEADER, b"x") + element(VOID, bytes(9)) + element(SEGMENT, b"film")
    assert segment(data) == (SEGMENT, len(data) - 4, 4)
    assert segment(element(SEGMENT, b"film", unknown=True)) == (SEGMENT, 12, UNKNOWN)


@pytest.mark.parametrize("first", [element(HEADER, unknown=True), element(VOID, bytes(9), length=10_000), b"RIFF"])
def test_a_segment_that_cannot_be_reached_is_not_found(first: bytes) -> None:
    assert segment(first + element(SEGMENT, b"film")) is None


def test_the_size_of_the_file_ends_the_search_for_the_segment() -> None:
    data = element(VOID, bytes(9)) + element(SEGMENT)
    assert segment(data) == (SEGMENT, len(data), 0)
    assert segment(data, size=18) is None


def test_only_so_many_elements_are_looked_at_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_ELEMENTS", 5)
    assert segment(4 * element(VOID) + element(SEGMENT)) is not None
    assert segment(5 * element(VOID) + element(SEGMENT)) is None
    assert len(found(9 * element(VOID))) == 5
