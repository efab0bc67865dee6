"""The light of the old face is spread over the new one."""

import numpy as np

from deployments.faces.compositing.seam import seam_light, spread


def test_known_values_stay_and_gaps_are_filled_smoothly() -> None:
    slope = np.repeat(np.linspace(0, 90, 96, dtype=np.float32)[None, :, None], 96, axis=0).repeat(3, axis=2)
    weights = np.ones((96, 96), np.float32)
    weights[30:66, 30:66] = 0
    filled = spread(np.where(weights[..., None] > 0, slope, 0).astype(np.float32), weights)
    np.testing.assert_allclose(filled[weights > 0], slope[weights > 0], atol=1e-3)
    assert np.abs(filled - slope).max() < 12
    assert np.abs(np.diff(filled, axis=1)).max() < 8, "no step at the edge of the gap"


def test_the_difference_is_that_of_skin_and_not_of_hair() -> None:
    new, old = np.full((96, 96, 3), 120, np.uint8), np.full((96, 96, 3), 150, np.uint8)
    old[:30] = 10  # hair, which must not darken the face
    weights = np.zeros((96, 96), np.float32)
    weights[40:90, 10:86] = 1
    weights[50:80, 30:66] = 0
    light = seam_light(new, old, weights)
    assert light.dtype == np.float32
    np.testing.assert_allclose(light[45:85, 20:76], 30, atol=2)


def test_without_anything_in_common_nothing_is_added() -> None:
    new, old = np.full((96, 96, 3), 120, np.uint8), np.full((96, 96, 3), 10, np.uint8)
    np.testing.assert_allclose(seam_light(new, old, np.zeros((96, 96), np.float32)), 0, atol=1e-3)
