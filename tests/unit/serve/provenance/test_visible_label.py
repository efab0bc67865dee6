"""The label is large enough, is there for two seconds, and leaves the rest of the frames alone."""

from fractions import Fraction

import numpy as np
import pytest

from deployments.wire import Frames
from serve.provenance.visible_label import VisibleLabel


def changed(before: Frames, after: Frames) -> tuple[slice, slice]:
    """Return the rows and columns in which two frames differ."""
    different = (before != after).any(axis=(0, 3))
    rows, columns = np.flatnonzero(different.any(axis=1)), np.flatnonzero(different.any(axis=0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize(("width", "height"), [(832, 480), (480, 832), (128, 128), (1920, 1080)])
def test_it_can_be_read_on_any_ground_in_the_corner(width: int, height: int, ground: int) -> None:
    frames = np.full((1, height, width, 3), ground, np.uint8)
    drawn = VisibleLabel().draw(frames, (Fraction(0),))
    rows, columns = changed(frames, drawn)
    assert rows.start > height / 2
    assert columns.start > width / 3
    label = drawn[0, rows, columns, 0].astype(int)
    bright = np.flatnonzero((label > 200).any(axis=1))
    assert bright[-1] - bright[0] + 1 >= 0.05 * min(width, height), "the height that the standard asks for"
    assert label.max() - np.median(label[0]) > 100, "text and ground differ"
    assert (frames == ground).all(), "what was given is left alone"


def test_a_video_shows_it_for_two_seconds_however_its_chunks_are() -> None:
    frames = np.full((60, 48, 64, 3), 90, np.uint8)
    times = tuple(Fraction(3) + Fraction(i, 20) for i in range(60))
    whole = VisibleLabel().draw(frames, times)
    label = VisibleLabel()
    parts = [label.draw(frames[i : i + 7], times[i : i + 7]) for i in range(0, 60, 7)]
    assert (np.concatenate(parts) == whole).all()
    shown = (whole != frames).any(axis=(1, 2, 3))
    assert shown.tolist() == [time < 5 for time in times]
    assert parts[-1].base is frames or np.shares_memory(parts[-1], frames), "nothing is copied for nothing"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 200), (200, 3), (16, 16)])
def test_the_smallest_frames_do_not_fail(width: int, height: int) -> None:
    frames = np.zeros((2, height, width, 3), np.uint8)
    assert VisibleLabel().draw(frames, (Fraction(0), Fraction(1))).shape == frames.shape
