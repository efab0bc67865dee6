"""What surroundings predict is taken away, and what is left can be searched."""

from typing import Any

import numpy as np
import pytest

from serve.provenance.watermark.residual import correlate, fold, resample, residual

RNG = np.random.default_rng(7)
NOISE = RNG.normal(0, 1, (96, 128)).astype(np.float32)


@pytest.mark.parametrize(
    ("pixels", "shape"), [(1.0, (96, 128)), (2.0, (48, 64)), (0.5, (192, 256)), (3.0, (32, 43)), (100.0, (8, 8))]
)
def test_there_is_a_sample_for_each_square_of_pixels_and_at_least_eight(pixels: float, shape: tuple[int, int]) -> None:
    flat = np.full((96, 128), 77, np.float32)
    resampled = resample(flat, pixels)
    assert resampled.shape == shape
    np.testing.assert_allclose(resampled, 77, atol=1e-3)
    assert (resampled is flat) == (pixels == 1)


def test_reducing_averages_the_pixels_of_each_square() -> None:
    blocks = NOISE.reshape(48, 2, 64, 2).mean((1, 3))
    np.testing.assert_allclose(resample(NOISE, 2.0), blocks, atol=1e-5)


def test_the_residual_does_not_depend_on_brightness_and_little_on_contrast() -> None:
    plain = residual(20 * NOISE, 2)
    assert (plain.dtype, plain.shape) == (np.dtype(np.float32), (96, 128))
    assert np.abs(residual(20 * NOISE + 100, 2) - plain).max() < 1e-2 * np.abs(plain).max()
    assert np.corrcoef(residual(60 * NOISE, 2).ravel(), plain.ravel())[0, 1] > 0.98
    assert np.abs(residual(np.full((96, 128), 200, np.float32), 2)).max() < 1e-2 * np.abs(plain).max()


def test_a_faint_pattern_weighs_more_in_the_residual_of_a_strong_edge() -> None:
    """The edge dominates the frame, and after it is taken away the pattern does."""
    edge = np.where(np.arange(128) < 64, 0, 150).astype(np.float32) * np.ones((96, 1), np.float32)
    pattern = np.sign(NOISE)
    frame = edge + 2 * pattern

    def likeness(plane: Any) -> float:
        return float(np.corrcoef(plane.ravel(), pattern.ravel())[0, 1])

    assert likeness(frame) < 0.1
    assert likeness(residual(frame, 2)) > 0.6


@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (33, 65), (5, 7)])
def test_folding_adds_all_squares_and_pads_with_nothing(shape: tuple[int, int]) -> None:
    plane = RNG.normal(0, 1, shape).astype(np.float32)
    expected = np.zeros((32, 32))
    for y in range(shape[0]):
        for x in range(shape[1]):
            expected[y % 32, x % 32] += plane[y, x]
    np.testing.assert_allclose(fold(plane, 32), expected, atol=1e-4)


@pytest.mark.parametrize("shift", [(0, 0), (3, 30), (31, 1)])
def test_the_correlation_is_highest_where_the_template_was_moved_to(shift: tuple[int, int]) -> None:
    template = np.ascontiguousarray(NOISE[:32, :32])
    found = correlate(np.roll(template, shift, (0, 1)), template)
    assert tuple(int(one) for one in np.unravel_index(found.argmax(), found.shape)) == shift
    assert found.max() == pytest.approx(float((template**2).sum()), rel=1e-4)
