"""The boxes of an MP4 file are found by their lengths, whatever these say."""

import io

import pytest

from serve.media.decode import boxes as module
from serve.media.decode.boxes import boxes
from tests.unit.serve.media.make_boxes import box


def found(data: bytes, start: int = 0, end: int | None = None) -> list[tuple[bytes, int, int]]:
    return list(boxes(io.BytesIO(data), start, len(data) if end is None else end))


def test_each_box_has_its_kind_and_the_place_of_its_content() -> None:
    data = box(b"ftyp", b"isom") + box(b"free") + box(b"mdat", bytes(30))
    assert found(data) == [(b"ftyp", 8, 12), (b"free", 20, 20), (b"mdat", 28, 58)]
    assert [data[start:end] for _, start, end in found(data)] == [b"isom", b"", bytes(30)]


def test_a_wide_box_has_its_length_behind_its_kind() -> None:
    data = box(b"mdat", b"pixels", wide=True) + box(b"moov", b"!")
    assert [(kind, data[start:end]) for kind, start, end in found(data)] == [(b"mdat", b"pixels"), (b"moov", b"!")]


def test_boxes_in_a_box_are_found_between_its_ends() -> None:
    inner = box(b"mvhd", b"12") + box(b"trak", b"345")
    data = box(b"moov", inner) + box(b"mdat", bytes(9))
    (moov, _) = found(data)
    assert [(kind, data[start:end]) for kind, start, end in found(data, *moov[1:])] == [(b"mvhd", b"12"), (b"trak", b"345")]


def test_a_box_without_a_length_reaches_to_the_end_and_is_the_last() -> None:
    data = box(b"free") + box(b"mdat", bytes(9), length=0) + box(b"moov")
    assert found(data) == [(b"free", 8, 8), (b"mdat", 16, len(data))]
    assert found(data, end=20) == [(b"free", 8, 8), (b"mdat", 16, 20)]


def test_a_box_of_a_truncated_file_ends_behind_it() -> None:
    whole = box(b"moov", bytes(4)) + box(b"mdat", bytes(100))
    assert found(whole[:-60]) == [(b"moov", 8, 12), (b"mdat", 20, len(whole))]


@pytest.mark.parametrize("length", range(2, 8))
def test_a_box_that_is_shorter_than_its_head_ends_the_search(length: int) -> None:
    assert found(box(b"free") + box(b"odd!", length=length) + box(b"moov")) == [(b"free", 8, 8), (b"odd!", 16, 8 + length)]


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_head_that_is_cut_is_no_box(cut: int) -> None:
    data = box(b"free") + box(b"moov")
    assert found(data[:-cut]) == [(b"free", 8, 8)]
    assert found(data, end=len(data) - cut) == [(b"free", 8, 8)], "nor one that leaves its parent"


@pytest.mark.parametrize("length", [2**32, 2**63, 2**64 - 1])
def test_a_box_may_claim_to_be_larger_than_any_file(length: int) -> None:
    data = box(b"free") + (1).to_bytes(4, "big") + b"mdat" + length.to_bytes(8, "big")
    assert found(data) == [(b"free", 8, 8), (b"mdat", 24, 8 + length)]
    assert found(data, end=2**65) == [(b"free", 8, 8), (b"mdat", 24, 8 + length)], "in a parent that claims it, too"


def test_only_so_many_boxes_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_BOXES", 5)
    assert len(found(box(b"free") * 9)) == 5
