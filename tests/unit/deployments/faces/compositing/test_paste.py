"""Pasting changes the region of the face as a paste over the whole frame does, and nothing else."""

import cv2
import numpy as np
import pytest

from deployments.faces.compositing.alignment import ARCFACE, align, crop
from deployments.faces.compositing.paste import box_mask, paste, sharp_box_mask
from serve.media.samples import group


@pytest.mark.slow
def test_paste_equals_a_paste_over_the_whole_frame() -> None:
    """The plain way is to warp patch and mask to the full frame and to blend everything."""
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
    paste(result, patch, matrix=matrix, mask=mask)
    np.testing.assert_allclose(result.astype(int), expected.astype(int), atol=1)
    np.testing.assert_array_equal(result[alpha[..., 0] == 0], frame[alpha[..., 0] == 0])


def test_paste_outside_the_frame_changes_nothing() -> None:
    frame = group()
    result = frame.copy()
    matrix = np.array([[1.0, 0, 900], [0, 1.0, 900]])
    paste(result, group()[:128, :128], matrix=matrix, mask=box_mask(128))
    np.testing.assert_array_equal(result, frame)


def test_share_is_a_factor_of_the_mask() -> None:
    frame = np.zeros((64, 64, 3), np.uint8)
    patch = np.full((64, 64, 3), 200, np.uint8)
    paste(frame, patch, matrix=np.eye(2, 3), mask=np.ones((64, 64), np.float32), share=0.25)
    np.testing.assert_array_equal(frame[8:-8, 8:-8], 50)


def test_a_patch_that_is_pasted_smaller_is_averaged() -> None:
    """Linear sampling alone would keep only the black or only the white stripes."""
    stripes = np.zeros((128, 128, 3), np.uint8)
    stripes[:, ::2] = 255
    frame = np.zeros((64, 64, 3), np.uint8)
    paste(frame, stripes, matrix=np.array([[4.0, 0, 0], [0, 4.0, 0]]), mask=np.ones((128, 128), np.float32))
    np.testing.assert_allclose(frame[4:28, 4:28].astype(int), 127.5, atol=1)
    assert (frame[40:, 40:] == 0).all()


def test_masks_are_full_in_the_middle_and_empty_at_the_edge() -> None:
    for mask in (box_mask(128), sharp_box_mask(128)):
        assert mask.dtype == np.float32
        assert mask.shape == (128, 128)
        assert mask[64, 64] == pytest.approx(1)
        assert mask[0].max() < 0.1
        np.testing.assert_allclose(mask, mask.T, atol=1e-6)
    assert sharp_box_mask(128).sum() > box_mask(128).sum()
