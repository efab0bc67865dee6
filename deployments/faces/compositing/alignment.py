"""Aligns faces to templates: affine transforms from landmarks, and aligned crops."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.transform import SimilarityTransform

from deployments.wire import Image

Matrix = npt.NDArray[np.float64]
"""An affine transform from image to crop, float64 ``[2, 3]``."""

ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""Landmarks of ArcFace's 112-pixel template (https://github.com/deepinsight/insightface)."""
FFHQ = np.array(
    [[192.98138, 239.94708], [318.90277, 240.1936], [256.63416, 314.01935], [201.26117, 371.41043], [313.08905, 371.15118]]
)
"""Landmarks of the 512-pixel template that GFPGAN and CodeFormer were trained on.

Source: https://github.com/xinntao/facexlib.
"""


def align(landmarks: npt.NDArray[np.float32], template: npt.NDArray[np.float64]) -> Matrix:
    """Return the similarity transform from ``landmarks`` ``[5, 2]`` to ``template``.

    It is the least-squares solution (Umeyama).
    """
    return np.asarray(SimilarityTransform.from_estimate(landmarks.astype(np.float64), template).params[:2])


def align_affine(landmarks: npt.NDArray[np.float32], goal: npt.NDArray[np.floating[Any]]) -> Matrix:
    """Return the affine transform (least squares) from ``landmarks`` ``[5, 2]`` to ``goal``.

    It shears the face if the two poses differ.
    """
    homogeneous = np.column_stack([landmarks.astype(np.float64), np.ones(len(landmarks))])
    solution: Matrix = np.linalg.lstsq(homogeneous, goal.astype(np.float64), rcond=None)[0]
    return np.ascontiguousarray(solution.T)


def crop(image: Image, matrix: Matrix, size: int) -> Image:
    """Return the square crop of ``size`` pixels that ``matrix`` aligns."""
    return np.asarray(cv2.warpAffine(image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
