"""Matches the colours of one image to those of another, by mean and spread in CIE L*a*b*.

Reinhard, Ashikhmin, Gooch, Shirley: "Color Transfer between Images" (IEEE CG&A, 2001).
"""

import cv2
import numpy as np
import numpy.typing as npt

from deployments.wire import Image

Inside = npt.NDArray[np.bool_]

_HARDLY = 4.0
"""The chroma, in CIE L*a*b*, below which skin is taken for grey: it cannot be multiplied."""
_CONTRAST, _DEPTH = (0.75, 1.1), (0.9, 1.1)
"""How many times stronger light and shade, and colours, become at least and at most. The rest of
the way colours are moved."""
_COLOURED = 6.0
"""The mean difference of a pixel's channels, of 255, below which an image is nearly grey."""


def match_colours(source: Image, target: Image, inside: Inside) -> Image:
    """Return ``source`` in the colours of ``target``.

    The colours of both are measured where ``inside``, ``[height, width]``, is true.
    """
    a, b = _lab(source), _lab(target)
    a_in, b_in = a[inside], b[inside]
    spread = np.clip(b_in.std(axis=0) / np.maximum(a_in.std(axis=0), 1e-3), 0.5, 1.5)
    matched = (a - a_in.mean(axis=0)) * spread + b_in.mean(axis=0)
    return _rgb(matched)


def match_skin(source: Image, target: Image, source_skin: Inside, target_skin: Inside) -> Image:
    """Return ``source`` with skin of the colour that skin has in ``target``.

    The skin of both, ``[height, width]`` each, says where colours are measured, in images of one
    size; ``source`` may be larger. Colours are multiplied before they are moved: eyes and teeth,
    which have hardly any, turn less blue where the target is paler. Without skin in one of the
    images nothing changes.
    """
    small = cv2.resize(source, source_skin.shape[1::-1], interpolation=cv2.INTER_AREA)
    a, b = (_lab(image)[skin] for image, skin in ((np.asarray(small), source_skin), (target, target_skin)))
    if not len(a) or not len(b):
        return source
    mean, goal = a.mean(axis=0), b.mean(axis=0)
    factor = np.clip(b.std(axis=0) / np.maximum(a.std(axis=0), 1e-3), *_CONTRAST)
    depth, wanted = (float(np.linalg.norm(colour[1:])) for colour in (mean, goal))
    factor[1:] = np.clip(wanted / max(depth, _HARDLY), *_DEPTH)
    return _rgb(_lab(source) * factor + (goal - mean * factor))


def match_saturation(source: Image, target: Image, inside: Inside) -> Image:
    """Return ``source``, grey if ``target`` is grey where ``inside`` is true.

    It loses its colours gradually as the target does, and keeps them if the target has some.
    """
    pixels = target[inside].astype(np.int16)
    share = min(1.0, float((pixels.max(axis=1) - pixels.min(axis=1)).mean()) / _COLOURED)
    if share == 1.0:
        return source
    grey = cv2.cvtColor(cv2.cvtColor(source, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(source, share, grey, 1 - share, 0))


def _lab(image: Image) -> npt.NDArray[np.float32]:
    return np.asarray(cv2.cvtColor(image.astype(np.float32) * np.float32(1 / 255), cv2.COLOR_RGB2LAB), np.float32)


def _rgb(lab: npt.NDArray[np.float32]) -> Image:
    rgb = cv2.cvtColor(lab.astype(np.float32), cv2.COLOR_LAB2RGB)
    return np.asarray(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8))
