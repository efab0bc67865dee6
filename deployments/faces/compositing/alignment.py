"""Aligns faces to templates: affine transforms from landmarks, and aligned crops."""

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from skimage.transform import SimilarityTransform

from deployments.wire import Image

Matrix = npt.NDArray[np.float64]
"""An affine transform from image to crop, float64 ``[2, 3]``."""

Landmarks = npt.NDArray[np.float64]
"""The landmarks of a template, ``[5, 2]``, in pixels of the crop."""

ARCFACE = np.array([[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]])
"""Landmarks of ArcFace's 112-pixel template (https://github.com/deepinsight/insightface)."""
INSWAPPER = ARCFACE + np.array([8, 0])
"""Landmarks of inswapper's 128-pixel template: ArcFace's with 8 more pixels on each side."""
FRONTAL = np.array([[39.730, 51.138], [72.270, 51.138], [56.000, 68.493], [42.463, 87.010], [69.537, 87.010]])
"""Landmarks of insightface's 112-pixel template for frontal faces, which SimSwap and Ghost use."""
MTCNN = np.array(
    [[187.20187, 239.27705], [324.12316, 238.51973], [256.09793, 317.14787], [199.84871, 397.30595], [313.23620, 396.67882]]
)
"""Landmarks of the 512-pixel template that HifiFace was trained on."""
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
