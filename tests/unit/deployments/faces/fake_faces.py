"""Faces that no detector has to find, and a tracker that follows them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deployments.faces.tracking.choice import Chooser
from deployments.faces.tracking.tracks import Tracker
from deployments.settings import Tracking
from deployments.wire import Choice, Embedding, Face

FPS = 25
SHAPE = np.array([[-1.0, -1], [1, -1], [0, 0], [-0.8, 1], [0.8, 1]])
"""Landmarks of a face of size 1 around the origin."""


def person(number: int) -> Embedding:
    """Return an embedding that is orthogonal to that of every other person."""
    return np.asarray(np.eye(8)[number], np.float32)


def face(x: float, y: float = 100, size: float = 20, who: int = 0, like: float = 1.0) -> Face:
    """Return a face at ``x, y``.

    ``like`` is the cosine of its embedding to that of person ``who``.
    """
    box = np.asarray([x - 1.5 * size, y - 1.8 * size, x + 1.5 * size, y + 1.8 * size], np.float32)
    embedding = like * person(who) + np.float32((1 - like**2) ** 0.5) * person(7)
    return Face(
        box=box,
        landmarks=np.asarray(SHAPE * size + [x, y], np.float32),
        score=0.9,
        embedding=np.asarray(embedding, np.float32),
    )


def follow(
    frames: Sequence[Sequence[Face] | None], choice: Choice | None = None, cuts: Sequence[int] = (), **settings: Any
) -> list[tuple[Face, ...]]:
    """Return the chosen faces of every frame; ``settings`` are those of ``Tracking``."""
    tracking = Tracking(**settings)
    tracker = Tracker(tracking, Chooser(choice or Choice(), tracking.match_threshold))
    decided = []
    for i, faces in enumerate(frames):
        decided += tracker.add(faces, i / FPS, cut=i in cuts)
    decided += tracker.end()
    assert len(decided) == len(frames)
    return decided


def x_of(faces: tuple[Face, ...]) -> float | None:
    """Return where the only face is, or None if there is none."""
    assert len(faces) <= 1
    return float(faces[0].landmarks[:, 0].mean()) if faces else None
