"""Aligns faces to a template and pastes crops back, touching only the region of the face."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.transform import SimilarityTransform

from deployments.wire import Image

Matrix = npt.NDArray[np.float64]
"""Affine, ``[2, 3]``, from picture to crop."""
Mask = npt.NDArray[np.float32]
"""``[height, width]``, 0..1."""

ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""Landmarks of ArcFace's 112-pixel template (https://github.com/deepinsight/insightface)."""
FFHQ = np.array(
    [[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043], [313.08905, 371.15118]]
)
"""Landmarks of the 512-pixel template that GFPGAN and CodeFormer were trained on (https://github.com/xinntao/facexlib)."""


def align(landmarks: npt.NDArray[np.float32], template: npt.NDArray[np.float64]) -> Matrix:
    """The similarity transform (Umeyama's least squares) that brings ``landmarks`` ``[5, 2]`` to ``template``."""
    return np.asarray(SimilarityTransform.from_estimate(landmarks.astype(np.float64), template).params[:2])


def align_affine(landmarks: npt.NDArray[np.float32], goal: npt.NDArray[np.floating[Any]]) -> Matrix:
    """The affine transform (least squares) that brings ``landmarks`` ``[5, 2]`` to ``goal``, shearing where poses differ."""
    homogeneous = np.column_stack([landmarks.astype(np.float64), np.ones(len(landmarks))])
    solution: Matrix = np.linalg.lstsq(homogeneous, goal.astype(np.float64), rcond=None)[0]
    return np.ascontiguousarray(solution.T)


def crop(image: Image, matrix: Matrix, size: int) -> Image:
    """The square of ``size`` pixels that ``matrix`` aligns."""
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def box_mask(size: int) -> Mask:
    """A square mask for a crop, feathered towards its edges, float32 in 0..1."""
    edge = max(size // 10, 1)
    mask = np.zeros((size, size), np.float32)
    mask[edge:-edge, edge:-edge] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), edge / 2))


def sharp_box_mask(size: int) -> Mask:
    """The mask that insightface's ``paste_back`` makes of the whole frame, made of the crop: a twentieth off each side, little blur."""
    edge = size / 20
    sigma = 0.3 * (edge - 1) + 0.8  # OpenCV's for a kernel of twice the edge
    mask = np.zeros((size, size), np.float32)
    mask[round(edge) : -round(edge), round(edge) : -round(edge)] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma))


def paste(frame: Image, patch: Image, matrix: Matrix, mask: Mask, share: float = 1.0) -> None:
    """Blends ``patch`` (aligned by ``matrix``) into ``frame`` in place, by ``mask`` times ``share``.

    Only the rectangle that the patch covers is computed; every pixel outside of it stays as it is.
    """
    size = patch.shape[0]
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0, 1], [size, 0, 1], [0, size, 1], [size, size, 1]], np.float64) @ back.T
    height, width = frame.shape[:2]
    left, top = (max(0, int(np.floor(v))) for v in corners.min(axis=0))
    right, bottom = (min(side, int(np.ceil(v)) + 1) for side, v in zip((width, height), corners.max(axis=0), strict=True))
    if left >= right or top >= bottom:
        return
    back[:, 2] -= (left, top)
    region = (right - left, bottom - top)
    # Minified patches alias under plain linear sampling: average whole pixels first.
    patch, mask, back = _shrink(patch, mask, back)
    warped = cv2.warpAffine(patch, back, region, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(mask, back, region, flags=cv2.INTER_LINEAR) * np.float32(share)
    target = frame[top:bottom, left:right]
    target[:] = cv2.blendLinear(warped, target, alpha, 1 - alpha)


def _shrink(patch: Image, mask: Mask, back: Matrix) -> tuple[Image, Mask, Matrix]:
    factor = int(1 / max(float(np.sqrt(abs(np.linalg.det(back[:, :2])))), 1e-6))
    if factor < 2:
        return patch, mask, back
    size = max(patch.shape[0] // factor, 1)
    scale = patch.shape[0] / size
    back = back.copy()
    back[:, 2] += back[:, :2] @ np.full(2, (scale - 1) / 2)  # pixel centres, not corners, keep their place
    back[:, :2] *= scale
    shrunk = (cv2.resize(a, (size, size), interpolation=cv2.INTER_AREA) for a in (patch, mask))
    return (*shrunk, back)
