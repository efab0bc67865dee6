"""What a detector says about one face that was cut out at several turns.

Detectors are trained on upright faces. For a face that leans, they give only a share of the angle,
YuNet a quarter to a half. But what they say falls in a line with the turns of the cuts, which is
zero where the face is upright.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from deployments.faces.compositing.alignment import Matrix
from deployments.faces.detection import Detection, Points, apart, turn_of, turned_by
from deployments.wire import Image

_NEAR = 16.0
"""The landmarks are averaged over cuts that lean by no more degrees."""
_SLOPES = (0.2, 1.0)
"""The least and the greatest share of a face's lean that a detector reports."""
MIRRORED = [1, 0, 2, 4, 3]
"""The order of the landmarks of a mirrored face."""


@dataclass(frozen=True, slots=True)
class View:
    """What the detector says about a face that was cut out at a ``turn``."""

    turn: float
    lean: float
    """By how many degrees more it should be turned, as the landmarks in the cut say."""
    landmarks: npt.NDArray[np.float64]
    """In pixels of the image."""
    score: float


def fitted_turn(views: Sequence[View]) -> float:
    """Return the turn at which a face does not lean, from its views at several turns."""
    middle = views[0].turn
    offsets = np.array([view.turn - middle for view in views])
    leans = np.array([view.lean for view in views])
    spread = offsets - offsets.mean()
    slope = -float((spread * leans).sum() / max(float((spread**2).sum()), 1e-9))
    return float(middle + offsets.mean() + leans.mean() / np.clip(slope, *_SLOPES))


def landmarks_at(turn: float, views: Sequence[View], larger: float) -> Points:
    """Return the mean landmarks of the views nearest to ``turn``, ``larger``, leaning like that."""
    near = [view for view in views if apart(view.turn, turn) <= _NEAR]
    if not near:
        near = [min(views, key=lambda view: apart(view.turn, turn))]
    points = [np.asarray(view.landmarks, np.float32) for view in near]
    mean = np.asarray(np.mean([turned_by(one, turn - turn_of(one)) for one in points], axis=0), np.float32)
    # The mean of points that differ is smaller than each of the shapes.
    size = larger * np.mean([_spread(one) for one in points]) / _spread(mean)
    middle = mean.mean(axis=0)
    return turned_by(np.asarray(middle + (mean - middle) * size, np.float32), turn - turn_of(mean))


def _spread(landmarks: Points) -> float:
    return float(np.linalg.norm(landmarks - landmarks.mean(axis=0)))


def cut_out(image: Image, face: Detection, turn: float, *, side: int, fill: float = 0.5) -> tuple[Image, Matrix]:
    """Return a square cut in which the turned face fills that share of the side, and its matrix."""
    scale = side * fill / face.size
    factor = max(1, int(0.5 / scale))
    reach = face.size / fill
    left, top = (max(0, int(v - reach)) for v in face.centre)
    right, bottom = (int(v + reach) + 1 for v in face.centre)
    region = image[top:bottom, left:right]
    if factor > 1:  # linear sampling alone would alias
        region = cv2.resize(region, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    shrink = np.array(
        [
            region.shape[1] / max(min(right, image.shape[1]) - left, 1),
            region.shape[0] / max(min(bottom, image.shape[0]) - top, 1),
        ]
    )
    c, s = np.cos(np.radians(turn)) * scale, np.sin(np.radians(turn)) * scale
    linear = np.array([[c, -s], [s, c]])
    matrix = np.column_stack([linear, side / 2 - linear @ face.centre])
    within = np.column_stack([linear / shrink, matrix[:, 2] + linear @ [left, top]])
    pixels = cv2.warpAffine(region, within, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(pixels), matrix


def placed(landmarks: Points, matrix: Matrix) -> npt.NDArray[np.float64]:
    """Return landmarks in a cut as landmarks in its image."""
    back = cv2.invertAffineTransform(matrix)
    return np.asarray(landmarks @ back[:, :2].T + back[:, 2])


def in_middles(found: Sequence[Detection], side: int, *, columns: int, count: int) -> list[Detection | None]:
    """Return the best face near the middle of each of ``count`` cuts, in pixels of the cut.

    The cuts, ``side`` pixels wide and high, lie in rows of ``columns``.
    """
    best: list[Detection | None] = [None] * count
    for one in found:
        if not np.isfinite(one.centre).all():  # a detector in half precision may overflow
            continue
        column, row = (int(v // side) for v in one.centre)
        cut = row * columns + column
        offset = np.array([column * side, row * side], np.float32)
        away = np.abs(one.centre - offset - side / 2).max()
        if not (0 <= column < columns and 0 <= cut < count and away <= 0.3 * side and 0.25 * side <= one.size <= 0.9 * side):
            continue
        rival = best[cut]
        if rival is None or one.score > rival.score:
            best[cut] = replace(one, box=one.box - np.tile(offset, 2), landmarks=one.landmarks - offset)
    return best
