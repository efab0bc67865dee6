"""Transforms from landmarks to a template, and the crops that they align."""

import numpy as np

from deployments.faces.compositing.alignment import FFHQ, align, align_affine, crop

ANGLE = np.deg2rad(20)
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])


def test_alignment_brings_landmarks_to_the_template() -> None:
    landmarks = (FFHQ @ TURN.T * 1.7 + [30, -12]).astype(np.float32)
    matrix = align(landmarks, FFHQ)
    np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], FFHQ, atol=1e-2)


def test_a_similarity_does_not_shear_and_an_affine_transform_does() -> None:
    shear = np.array([[1.0, 0.3], [0.0, 1.0]])
    landmarks = (FFHQ @ shear.T).astype(np.float32)
    similarity, affine = align(landmarks, FFHQ)[:, :2], align_affine(landmarks, FFHQ)
    np.testing.assert_allclose(similarity @ similarity.T, np.eye(2) * np.linalg.det(similarity), atol=1e-6)
    np.testing.assert_allclose(landmarks @ affine[:, :2].T + affine[:, 2], FFHQ, atol=1e-2)


def test_a_crop_shows_the_aligned_region_and_repeats_the_border() -> None:
    image = np.arange(16 * 16 * 3, dtype=np.uint8).reshape(16, 16, 3)
    np.testing.assert_array_equal(crop(image, np.array([[1.0, 0, -4], [0, 1.0, -2]]), 8), image[2:10, 4:12])
    outside = crop(image, np.array([[1.0, 0, -20], [0, 1.0, 0]]), 8)
    np.testing.assert_array_equal(outside, np.repeat(image[:8, -1:], 8, axis=1))
