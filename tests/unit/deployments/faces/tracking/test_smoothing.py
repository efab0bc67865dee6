"""Smoothing of landmarks over time."""

import numpy as np

from deployments.faces.tracking.smoothing import smooth
from tests.unit.deployments.faces.fake_faces import FPS, SHAPE


def test_even_motion_and_a_point_without_neighbours_do_not_change() -> None:
    points = [SHAPE * 20 + [3.0 * i, 2.0 * i] for i in range(9)]
    times = [i / FPS for i in range(9)]
    np.testing.assert_allclose(smooth(points, times, at=4, tolerance=2.0), points[4], atol=1e-9)
    np.testing.assert_array_equal(smooth(points, times, at=0, tolerance=2.0), points[0])
    np.testing.assert_array_equal(smooth(points[:1], times[:1], at=0, tolerance=2.0), points[0])


def test_jitter_around_a_face_at_rest_is_averaged_away() -> None:
    random = np.random.default_rng(0)
    jitter = random.normal(0, 0.5, (17, 5, 2))
    points = [SHAPE * 20 + 100 + noise for noise in jitter]
    smoothed = smooth(points, [i / FPS for i in range(17)], at=8, tolerance=2.0)
    assert np.abs(smoothed - (SHAPE * 20 + 100)).mean() < np.abs(jitter[8]).mean() / 2


def test_only_spans_without_a_jump_are_averaged() -> None:
    points = [SHAPE * 20 + (0.0 if i < 9 else 50.0) for i in range(17)]
    times = [i / FPS for i in range(17)]
    for at in range(17):
        np.testing.assert_allclose(smooth(points, times, at=at, tolerance=2.0), points[at], atol=1e-6)


def test_a_video_with_a_variable_frame_rate_is_smoothed_in_time_not_in_frames() -> None:
    times = [0.0, 0.04, 0.12, 0.16, 0.28, 0.32, 0.4]
    points = [SHAPE * 20 + 100 * time for time in times]
    np.testing.assert_allclose(smooth(points, times, at=3, tolerance=2.0), points[3], atol=1e-9)
