"""Where a patch goes in a frame, and that nothing else changes."""

import cv2
import numpy as np

from deployments.faces.paste import ARCFACE, FFHQ, align, box_mask, crop, paste
from serve.samples import group


def test_paste_equals_a_paste_over_the_whole_frame() -> None:
    """Held against the plain way: warp patch and mask to the full frame, then blend everything."""
    frame = group()
    landmarks = np.array([[180, 170], [220, 172], [199, 196], [184, 212], [216, 214]], np.float32)
    matrix = align(landmarks, ARCFACE / 112 * 128)
    patch, mask = crop(frame[::-1].copy(), matrix, 128), box_mask(128)
    back = cv2.invertAffineTransform(matrix)
    size = (frame.shape[1], frame.shape[0])
    alpha = cv2.warpAffine(mask, back, size)[:, :, None]
    whole = cv2.warpAffine(patch, back, size, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    expected = np.rint(frame + alpha * (whole - frame)).astype(np.uint8)
    result = frame.copy()
    paste(result, patch, matrix, mask)
    np.testing.assert_allclose(result.astype(int), expected.astype(int), atol=1)
    np.testing.assert_array_equal(result[alpha[..., 0] == 0], frame[alpha[..., 0] == 0])


def test_paste_outside_the_frame_changes_nothing() -> None:
    frame = group()
    result = frame.copy()
    paste(result, group()[:128, :128], np.array([[1.0, 0, 900], [0, 1.0, 900]]), box_mask(128))
    np.testing.assert_array_equal(result, frame)


def test_alignment_brings_landmarks_to_the_template() -> None:
    angle = np.deg2rad(20)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * 1.7
    landmarks = (FFHQ @ turn.T + [30, -12]).astype(np.float32)
    matrix = align(landmarks, FFHQ)
    np.testing.assert_allclose(landmarks @ matrix[:, :2].T + matrix[:, 2], FFHQ, atol=1e-2)
