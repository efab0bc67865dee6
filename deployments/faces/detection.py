"""Faces as a detector finds them, before they are identified."""

import math
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from deployments.faces.compositing.alignment import ARCFACE, align

Points = npt.NDArray[np.float32]

_SAME_POINTS = 0.5
"""The mean distance of the landmarks of two detections of one face, in distances of its eyes."""
_UPRIGHT = ARCFACE - ARCFACE.mean(axis=0)


@dataclass(frozen=True, slots=True)
class Detection:
    """A face before it is identified, in pixels of the image."""

    box: npt.NDArray[np.float32]
    landmarks: Points
    score: float
    certain: bool = True
    """Whether the landmarks can be trusted."""

    @property
    def centre(self) -> npt.NDArray[np.float32]:
        """The middle of the box."""
        return np.asarray((self.box[:2] + self.box[2:]) / 2, np.float32)

    @property
    def area(self) -> float:
        """The area of the box."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0)))

    @property
    def size(self) -> float:
        """The longer side of the box."""
        return max(float((self.box[2:] - self.box[:2]).max()), 1.0)


def apart(one: float, other: float) -> float:
    """Return the angle between two turns, 0 to 180 degrees."""
    return abs((one - other + 180) % 360 - 180)


def turn_of(landmarks: Points) -> float:
    """Return the degrees, clockwise, by which a face must be turned to be upright.

    That is the rotation of ``align`` (Umeyama's least squares, which in two dimensions is the
    argument of a sum). It is asked of every cut of a face, and this takes a tenth of the time.
    """
    off = landmarks - landmarks.mean(axis=0)
    cross = off[:, 0] @ _UPRIGHT[:, 1] - off[:, 1] @ _UPRIGHT[:, 0]
    return math.degrees(math.atan2(cross, (off * _UPRIGHT).sum()))


def turned_by(landmarks: Points, degrees: float) -> Points:
    """Return ``landmarks``, turned about their middle so that ``turn_of`` grows by ``degrees``."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    middle = landmarks.mean(axis=0)
    return np.asarray((landmarks - middle) @ np.array([[c, -s], [s, c]]) + middle, np.float32)


def misfit(landmarks: Points) -> float:
    matrix = align(landmarks, ARCFACE)
    placed = landmarks @ matrix[:, :2].T + matrix[:, 2]
    return float(np.linalg.norm(placed - ARCFACE, axis=1).mean() / np.linalg.norm(ARCFACE[1] - ARCFACE[0]))


def turned_back(face: Detection, turn: int, height: int, width: int) -> Detection:
    """Return a face of a turned image in pixels of the image, which has the given size."""

    def back(points: Any) -> Any:
        x, y = points[:, 0], points[:, 1]
        if turn == cv2.ROTATE_90_CLOCKWISE:
            return np.stack([y, height - 1 - x], axis=1)
        if turn == cv2.ROTATE_180:
            return np.stack([width - 1 - x, height - 1 - y], axis=1)
        return np.stack([width - 1 - y, x], axis=1)

    corners = back(face.box.reshape(2, 2))
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    return replace(face, box=np.asarray(box, np.float32), landmarks=np.asarray(back(face.landmarks), np.float32))


def may_be_same(lying: Detection, upright: Detection) -> bool:
    """Return whether two detections, one of them in the turned image, may be of one face."""
    pairs = (upright.box, lying.centre), (lying.box, upright.centre)
    return any(bool(np.all((box[:2] < point) & (point < box[2:]))) for box, point in pairs)


def without_doubles(faces: list[Detection]) -> list[Detection]:
    """Return ``faces`` without those that are another one once more, in their order.

    A detector can put a second box beside a face that leans. Once its landmarks are corrected, they
    lie on the face, or they cannot be trusted.
    """
    kept: list[Detection] = []
    for face in sorted(faces, key=lambda face: (not face.certain, _away_from_box(face))):
        if not any(_are_same(one, face) for one in kept):
            kept.append(face)
    return [face for face in faces if any(face is one for one in kept)]


def _away_from_box(face: Detection) -> float:
    """Return how far the landmarks are from the middle of the box, in its sizes."""
    return float(np.linalg.norm(face.landmarks.mean(axis=0) - face.centre)) / face.size


def _are_same(certain: Detection, other: Detection) -> bool:
    """Return whether ``other``, which is less certain, shows the same face."""
    if not other.certain:
        return may_be_same(certain, other)
    size = float(np.linalg.norm(certain.landmarks[1] - certain.landmarks[0]))
    return float(np.linalg.norm(certain.landmarks - other.landmarks, axis=1).mean()) < _SAME_POINTS * size


def overlap(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return the intersection over union of two boxes."""
    shared = float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))
    areas = sum(float(np.prod(np.maximum(box[2:] - box[:2], 0))) for box in (a, b))
    return shared / max(areas - shared, 1e-9)
