"""Skin is told from what covers it, by the colour of the cheeks."""

import numpy as np

from deployments.faces.compositing.skin import distance_from_skin, likely


def test_hair_and_background_are_not_skin_and_shaded_skin_is() -> None:
    face = np.full((96, 96, 3), (205, 150, 125), np.uint8)
    face[:20] = (60, 40, 30)  # hair
    face[:, :10] = (90, 120, 200)  # background
    face[70:, 40:60] = (180, 128, 105)  # a shadow
    noise = np.random.default_rng(0).integers(-6, 7, face.shape)
    cheeks = np.zeros((96, 96), bool)
    cheeks[40:60, 30:70] = True
    distance = distance_from_skin(np.clip(face + noise, 0, 255).astype(np.uint8), cheeks)
    assert distance.dtype == np.float32
    assert np.percentile(distance[25:70, 15:], 95) < 2.8
    assert distance[75:, 45:55].mean() < 2.8
    assert distance[:18].min() > 4.5
    assert distance[:, :8].min() > 4.5


def test_it_works_on_grey_pictures() -> None:
    face = np.full((96, 96, 3), 170, np.uint8)
    face[:20] = 50
    cheeks = np.zeros((96, 96), bool)
    cheeks[40:60, 30:70] = True
    distance = distance_from_skin(face, cheeks)
    assert distance[22:].max() < 1
    assert distance[:18].min() > 4.5


def test_likelihood_falls_with_the_distance_and_is_a_half_at_the_limit() -> None:
    values = likely(np.array([[0.0, 2.0, 4.0, 100.0]], np.float32), 2.0)
    assert values[0, 1] == 0.5
    assert (np.diff(values[0]) < 0).all()
    assert values[0, -1] < 1e-6
