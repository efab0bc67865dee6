"""Pastes aligned crops back into a frame; only the region of the face is computed."""

import cv2
import numpy as np
import numpy.typing as npt

from deployments.faces.compositing.alignment import Matrix
from deployments.wire import Image

Mask = npt.NDArray[np.float32]
"""float32 ``[height, width]`` in 0..1."""


def box_mask(size: int) -> Mask:
    """Return a square mask for a crop, feathered towards its edges."""
    edge = max(size // 10, 1)
    mask = np.zeros((size, size), np.float32)
    mask[edge:-edge, edge:-edge] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), edge / 2))


def sharp_box_mask(size: int) -> Mask:
    """Return the mask of insightface's ``paste_back``, for the crop instead of the whole frame.

    It leaves out a twentieth on each side and is blurred little.
    """
    edge = size / 20
    sigma = 0.3 * (edge - 1) + 0.8  # OpenCV's default for a kernel of twice the edge
    mask = np.zeros((size, size), np.float32)
    mask[round(edge) : -round(edge), round(edge) : -round(edge)] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma))


def padded_mask(size: int, padding: tuple[float, float, float, float]) -> Mask:
    """Return a mask that is 0 at the edges of a crop, by shares of its side, and soft there.

    ``padding`` is that of the top, the right, the bottom and the left.
    """
    top, right, bottom, left = (round(share * size) for share in padding)
    mask = np.zeros((size, size), np.float32)
    mask[top : size - bottom, left : size - right] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), size / 40, borderType=cv2.BORDER_REPLICATE))


def soft_box_mask(size: int) -> Mask:
    """Return the mask that facefusion pastes new faces with: narrower than ``box_mask``."""
    blur = int(size * 0.15)
    edge = max(blur // 2, 1)
    mask = np.zeros((size, size), np.float32)
    mask[edge:-edge, edge:-edge] = 1
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), max(blur / 4, 0.1)))


def paste(frame: Image, patch: Image, *, matrix: Matrix, mask: Mask, share: float = 1.0) -> None:
    """Blend ``patch`` into ``frame`` in place, by ``mask`` times ``share``.

    ``matrix`` is the transform that aligned the patch. Only the rectangle that it covers is
    computed; pixels outside of it do not change.
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
    patch, mask, back = _shrink(patch, mask, back)
    warped = cv2.warpAffine(patch, back, region, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    alpha = cv2.warpAffine(mask, back, region, flags=cv2.INTER_LINEAR) * np.float32(share)
    target = frame[top:bottom, left:right]
    target[:] = cv2.blendLinear(warped, target, alpha, 1 - alpha)


def _shrink(patch: Image, mask: Mask, back: Matrix) -> tuple[Image, Mask, Matrix]:
    """Average whole pixels of a patch that is pasted smaller: linear sampling alone would alias."""
    factor = int(1 / max(float(np.sqrt(abs(np.linalg.det(back[:, :2])))), 1e-6))
    if factor < 2:
        return patch, mask, back
    size = max(patch.shape[0] // factor, 1)
    scale = patch.shape[0] / size
    back = back.copy()
    # This keeps pixel centres in place rather than corners.
    back[:, 2] += back[:, :2] @ np.full(2, (scale - 1) / 2)
    back[:, :2] *= scale
    shrunk = (cv2.resize(a, (size, size), interpolation=cv2.INTER_AREA) for a in (patch, mask))
    return (*shrunk, back)
