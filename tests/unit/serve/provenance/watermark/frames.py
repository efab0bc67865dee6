"""Frames with the structure of photographs, which the tests of watermarks mark."""

import cv2
import numpy as np

from deployments.wire import Frames
from serve.media.samples import PORTRAIT


def portrait_film(width: int, height: int, count: int) -> Frames:
    """Return uint8 RGB frames ``[count, height, width, 3]`` that pan over a portrait."""
    portrait = cv2.cvtColor(cv2.imread(str(PORTRAIT)), cv2.COLOR_BGR2RGB)
    zoom = 1.2 * max(width / portrait.shape[1], height / portrait.shape[0])
    large = cv2.resize(portrait, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC)
    return np.stack([large[number : number + height, 2 * number : 2 * number + width] for number in range(count)])
