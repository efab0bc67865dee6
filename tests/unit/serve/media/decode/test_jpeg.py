"""Scans are counted as libjpeg meets them: in the first image, and not inside other segments."""

import io

import PIL.Image
import pytest

from serve.media.decode.jpeg import count_scans
from tests.unit.serve.media.make_picture import jpeg, with_scans


@pytest.mark.parametrize(
    ("data", "scans"), [(jpeg(progressive=False), 1), (jpeg(progressive=True), 10), (b"", 0), (b"\x89PNG", 0)]
)
def test_the_scans_of_ordinary_files_are_counted(data: bytes, scans: int) -> None:
    assert count_scans(data, 100) == scans


def test_counting_ends_after_the_limit() -> None:
    assert count_scans(with_scans(300), 1000) == 300
    assert count_scans(with_scans(300), 100) == 101


def test_a_thumbnail_a_comment_and_what_follows_the_end_are_not_counted() -> None:
    inner = with_scans(200, side=8)
    data = jpeg(progressive=False)
    segment = b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner
    assert len(inner) < 65_000
    assert count_scans(data[:2] + segment + data[2:], 100) == 1
    assert count_scans(data + inner, 100) == 1


def test_fill_bytes_restart_markers_and_garbage_do_not_hide_a_scan() -> None:
    data = with_scans(150)
    filled = data.replace(b"\xff\xda", b"\xff\xff\xff\xda")
    assert count_scans(filled, 1000) == 150
    assert count_scans(data.replace(b"\xff\xda", b"\xff\xd3\xff\xda"), 1000) == 150
    assert count_scans(data.replace(b"\xff\xda", b"\x00\x12\xff\xda"), 1000) == 150
    PIL.Image.open(io.BytesIO(filled)).load()  # libjpeg reads it, so each of the scans costs its time
