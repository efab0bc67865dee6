"""Makes a new face meet the old one without a seam.

The difference between the two, where both show skin, is spread smoothly over the whole face and
added to the new one. That is what Poisson image editing (Pérez, Gangnet, Blake, 2003) does from the
edge alone; here hair and background at the edge do not count.
"""

import cv2
import numpy as np
import numpy.typing as npt

from deployments.wire import Image

_LEAST = 1e-3
"""The weight below which a pixel takes its value from coarser levels."""


def spread(values: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return ``values`` ``[height, width, 3]``, filled in smoothly where ``weights`` are low.

    It averages down to one pixel and then fills each level from the coarser one.
    """
    if min(weights.shape) <= 2:
        total = max(float(weights.sum()), _LEAST)
        mean = (values * weights[..., None]).sum(axis=(0, 1)) / total
        return np.broadcast_to(np.asarray(mean, np.float32), values.shape).copy()
    lower = cv2.pyrDown(weights)
    averaged = cv2.pyrDown(values * weights[..., None]) / np.maximum(lower, _LEAST)[..., None]
    coarse = spread(averaged.astype(np.float32), np.minimum(lower * 4, 1))
    filled = cv2.pyrUp(coarse, dstsize=values.shape[1::-1])
    share = np.clip(weights, 0, 1)[..., None]
    return np.asarray(values * share + filled * (1 - share), np.float32)


def seam_light(new: Image, old: Image, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return what must be added to ``new`` to be in the light of ``old``, float32 ``[h, w, 3]``.

    ``weights`` float32 ``[h, w]`` in 0..1 say where both show the same kind of surface around the
    part that is replaced.
    """
    difference = cv2.GaussianBlur(old.astype(np.float32) - new, (0, 0), new.shape[0] / 64)
    return spread(np.asarray(difference, np.float32), weights)
