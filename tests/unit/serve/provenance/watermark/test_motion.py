import cv2
import numpy as np
import pytest

from serve.provenance.watermark import Detector, Payload, Watermark
from serve.provenance.watermark.detector import MAX_RATE
from serve.provenance.watermark.motion import SCALES, MovedTiles, peaks
from serve.provenance.watermark.pattern import PUBLISHED_SECRET, pattern_of
from serve.provenance.watermark.residual import Plane
from tests.unit.serve.provenance.watermark.frames import portrait_film

PAYLOAD = Payload(3, 0x0ABCDEF)


def luma(width: int = 832, height: int = 480) -> tuple[Plane, Plane]:
    """Return the luma of a portrait, and what the watermark adds to it."""
    frame = portrait_film(width, height, 1)
    plain, marked = (cv2.cvtColor(each[0], cv2.COLOR_RGB2GRAY) for each in (frame, Watermark(PAYLOAD).mark(frame)))
    return plain.astype(np.float32), marked.astype(np.float32) - plain


def moved(pattern: Plane, zoom: float, right: float, down: float) -> Plane:
    matrix = np.array([[zoom, 0, right], [0, zoom, down]], np.float32)
    height, width = pattern.shape
    warped: Plane = cv2.warpAffine(pattern, matrix, (width, height), borderMode=cv2.BORDER_REFLECT).astype(np.float32)
    return warped


def test_a_pattern_that_was_zoomed_with_the_picture_is_read() -> None:
    plain, added = luma()
    readings = Detector(scaled=False).detect_all([plain + 0.7 * moved(added, 1.03, -11.3, -4.6)])
    assert [reading.payload for reading in readings] == [PAYLOAD]
    assert readings[0].false_positive_rate <= MAX_RATE


def test_two_weak_patterns_are_read_together() -> None:
    """A predicted frame has a part of its own pattern, and a part of that of the frame before."""
    plain, added = luma()
    pattern = pattern_of(PUBLISHED_SECRET)

    def rate(frame: Plane) -> float:
        found = MovedTiles(frame, 2).read(pattern, 3)
        return found[1] if found is not None and found[0] == PAYLOAD else 1.0

    noisy = plain + np.random.default_rng(4).normal(0, 9, plain.shape).astype(np.float32)
    own, older = 0.22 * added, 0.28 * moved(added, 1.02, 5.5, -7.0)
    assert rate(noisy + own + older) < 1e-3 * min(rate(noisy + own), rate(noisy + older))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["portrait", "noise", "flat", "stripes"])
def test_no_payload_is_sure_where_nothing_is(kind: str) -> None:
    frame = {
        "portrait": luma(256, 144)[0],
        "noise": np.random.default_rng(1).uniform(0, 255, (144, 256)).astype(np.float32),
        "flat": np.full((144, 256), 77, np.float32),
        "stripes": np.repeat(np.arange(144, dtype=np.float32)[:, None] % 64, 256, axis=1),
    }[kind]
    found = MovedTiles(frame, 2).read(pattern_of(PUBLISHED_SECRET), 3)
    assert found is None or found[1] > 1.0


def test_peaks_are_the_highest_of_all_places_around_them() -> None:
    """Rows and columns of a tile go round, and scales do not."""
    random = np.random.default_rng(7)
    matches = random.normal(size=(5, 64, 64)).astype(np.float32)
    matches[0, 0, 63] = matches[4, 63, 0] = 9.0
    matches[1, 2, 1] = 8.9
    expected = []
    for scale, row, column in np.ndindex(*matches.shape):
        scales = range(max(0, scale - 2), min(5, scale + 3))
        rows, columns = ([(at + step) % 64 for step in range(-2, 3)] for at in (row, column))
        if matches[scale, row, column] == matches[np.ix_(scales, rows, columns)].max():
            expected.append((scale, row, column))
    expected.sort(key=lambda place: matches[place], reverse=True)
    assert set(expected[:2]) == {(0, 0, 63), (4, 63, 0)}
    assert (1, 2, 1) not in expected
    assert set(peaks(matches, 2)) == set(expected[:2])
    assert peaks(matches, len(expected) + 5)[2:] == expected[2:]


def test_the_scales_have_the_size_of_the_mark_once() -> None:
    assert SCALES.count(1) == 1
    assert list(SCALES) == sorted(set(SCALES))


@pytest.mark.slow
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 300), (16, 16)])
def test_tiny_frames_are_looked_at_without_an_error(height: int, width: int) -> None:
    found = MovedTiles(np.full((height, width), 9, np.float32), 2).read(pattern_of(PUBLISHED_SECRET), 3)
    assert found is None or found[1] > 1.0
