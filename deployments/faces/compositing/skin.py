"""Tells skin from hair, glasses and background in an aligned face, by the colour of its cheeks."""

import cv2
import numpy as np
import numpy.typing as npt

from deployments.wire import Image

Mask = npt.NDArray[np.float32]

_LEAST_SPREAD = np.array([9.0, 4.0, 4.0], np.float32)
"""The least spread of skin in CIE L*a*b*: a smooth cheek in even light has hardly any."""
_STEEP = 1.5
"""How fast a pixel becomes less likely skin with its distance."""


def distance_from_skin(face: Image, cheeks: npt.NDArray[np.bool_]) -> Mask:
    """Return how far each pixel of an aligned face is from skin, float32, in spreads of its colour.

    ``cheeks`` is true where the face is certainly skin. The result changes little if the face moves
    little, so that masks made from it do not flicker.
    """
    lab = cv2.cvtColor(np.float32(face / np.float32(255)), cv2.COLOR_RGB2LAB)
    samples = lab[cheeks]
    middle = np.median(samples, axis=0)
    spread = np.maximum(np.median(np.abs(samples - middle), axis=0) * 1.4826, _LEAST_SPREAD)
    return np.asarray(np.sqrt((((lab - middle) / spread) ** 2).sum(axis=2)), np.float32)


def likely(distance: Mask, limit: float) -> Mask:
    """Return how likely each pixel is skin, 0..1; at the distance ``limit`` it may be or not."""
    return np.asarray(1 / (1 + np.exp(np.clip((distance - limit) * _STEEP, -30, 30))), np.float32)
