"""Matches the colours of one image to those of another, by mean and spread in CIE L*a*b*.

Reinhard, Ashikhmin, Gooch, Shirley: "Color Transfer between Images" (IEEE CG&A, 2001).
"""

import cv2
import numpy as np
import numpy.typing as npt

from deployments.wire import Image

_COLOURED = 6.0
"""The mean difference of a pixel's channels, of 255, below which an image is nearly grey."""


def match_colours(source: Image, target: Image, inside: npt.NDArray[np.bool_]) -> Image:
    """Return ``source`` in the colours of ``target``.

    The colours of both are measured where ``inside``, ``[height, width]``, is true.
    """
    a, b = (cv2.cvtColor(np.float32(image / 255), cv2.COLOR_RGB2LAB) for image in (source, target))
    a_in, b_in = a[inside], b[inside]
    spread = np.clip(b_in.std(axis=0) / np.maximum(a_in.std(axis=0), 1e-3), 0.5, 1.5)
    matched = (a - a_in.mean(axis=0)) * spread + b_in.mean(axis=0)
    rgb = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8))


def match_saturation(source: Image, target: Image, inside: npt.NDArray[np.bool_]) -> Image:
    """Return ``source``, grey if ``target`` is grey where ``inside`` is true.

    It loses its colours gradually as the target does, and keeps them if the target has some.
    """
    pixels = target[inside].astype(np.int16)
    share = min(1.0, float((pixels.max(axis=1) - pixels.min(axis=1)).mean()) / _COLOURED)
    if share == 1.0:
        return source
    grey = cv2.cvtColor(cv2.cvtColor(source, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(source, share, grey, 1 - share, 0))
