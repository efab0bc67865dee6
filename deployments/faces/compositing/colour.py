"""Matches the colours of one image to those of another, by mean and spread in CIE L*a*b*.

Reinhard, Ashikhmin, Gooch, Shirley: "Color Transfer between Images" (IEEE CG&A, 2001).
"""

import cv2
import numpy as np
import numpy.typing as npt

from deployments.wire import Image


_LEAST_SPREAD = np.array([0.5, 0.0, 0.0])
"""The least factor of the spread of lightness, and of the two colours: grey stays grey."""


def match_colours(source: Image, target: Image, inside: npt.NDArray[np.bool_]) -> Image:
    """Return ``source`` in the colours of ``target``.

    The colours of both are measured where ``inside``, ``[height, width]``, is true.
    """
    a, b = (cv2.cvtColor(np.float32(image / 255), cv2.COLOR_RGB2LAB) for image in (source, target))
    a_in, b_in = a[inside], b[inside]
    spread = np.clip(b_in.std(axis=0) / np.maximum(a_in.std(axis=0), 1e-3), _LEAST_SPREAD, 1.5)
    matched = (a - a_in.mean(axis=0)) * spread + b_in.mean(axis=0)
    rgb = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8))
