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
    found = likely(distance_from_skin(np.clip(face + noise, 0, 255).astype(np.uint8), cheeks), 4.5)
    assert found.dtype == np.float32
    assert found[25:, 15:].mean() > 0.9
    assert found[75:, 45:55].mean() > 0.8
    assert found[:18].max() < 0.1
    assert found[:, :8].max() < 0.1


def test_it_works_on_grey_pictures() -> None:
    face = np.full((96, 96, 3), 170, np.uint8)
    face[:20] = 50
    cheeks = np.zeros((96, 96), bool)
    cheeks[40:60, 30:70] = True
    found = likely(distance_from_skin(face, cheeks), 4.5)
    assert found[22:].min() > 0.9
    assert found[:18].max() < 0.05
