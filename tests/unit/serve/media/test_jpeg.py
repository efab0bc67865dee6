"""Scans are counted as libjpeg meets them: in the first image, and not inside other segments."""

import io

import numpy as np
import PIL.Image
import pytest

from serve.media.jpeg import count_scans


def jpeg(*, progressive: bool, side: int = 64) -> bytes:
    """Return a JPEG of little noise for a small ``side``, and of one colour for a large one."""
    pixels = np.random.default_rng(7).integers(0, 255, (side, side, 3) if side < 100 else (1, 1, 3), np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).resize((side, side)).save(buffer, "JPEG", progressive=progressive)
    return buffer.getvalue()


def with_scans(count: int, side: int = 64) -> bytes:
    """Return a progressive JPEG whose last scan is repeated until it has ``count`` of them."""
    data = jpeg(progressive=True, side=side)
    last = data.rfind(b"\xff\xda")
    repeats = count - count_scans(data, 1000)
    return data[:-2] + data[last:-2] * repeats + data[-2:]


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
