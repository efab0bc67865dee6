"""Smoothing of landmarks over time."""

import numpy as np

from deployments.faces.tracking.smoothing import smooth
from tests.unit.deployments.faces.fake_faces import FPS, SHAPE


def test_a_point_alone_stays_and_even_motion_is_kept_exactly() -> None:
    points = [SHAPE * 20 + [3.0 * i, 2.0 * i] for i in range(9)]
    times = [i / FPS for i in range(9)]
    np.testing.assert_allclose(smooth(points, times, 4, 2.0), points[4], atol=1e-9)
    np.testing.assert_array_equal(smooth(points, times, 0, 2.0), points[0])
    np.testing.assert_array_equal(smooth(points[:1], times[:1], 0, 2.0), points[0])
