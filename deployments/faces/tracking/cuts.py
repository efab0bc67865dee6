"""Finds scene cuts from the frames themselves."""

from collections import deque

import numpy as np
import numpy.typing as npt

from deployments.wire import Image

_ROWS, _COLUMNS = 18, 32
_BINS = 4
_MIN_DIFFERENCE = 16.0
"""The mean difference of two thumbnails, on a scale of 255, below which nothing is a cut."""
_MIN_COLOUR_CHANGE = 0.2
"""The share of pixels that must change colour: a fast camera move keeps most of the colours."""
_MIN_RATIO = 3.0
"""How many times more than the frames before it a cut must differ.

A fast pan differs much too, but it does so in every frame.
"""
_MEMORY = 8
"""The number of earlier differences that a frame is compared with."""


class CutFinder:
    """Finds the first frame of each scene; it must see every frame once, in order."""

    def __init__(self) -> None:
        self._previous: tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]] | None = None
        self._differences: deque[float] = deque(maxlen=_MEMORY)

    def starts_scene(self, frame: Image) -> bool:
        """Return whether ``frame`` shows another scene than the frame before it.

        The first frame does not start a scene.
        """
        height, width = frame.shape[:2]  # of a large frame a subset of the pixels is enough
        sparse = frame[:: max(1, height // (8 * _ROWS)), :: max(1, width // (8 * _COLUMNS))]
        current, previous = (_thumbnail(sparse), _histogram(sparse)), self._previous
        self._previous = current
        if previous is None:
            return False
        difference = float(np.abs(current[0] - previous[0]).mean())
        colour_change = float(np.abs(current[1] - previous[1]).sum()) / 2
        usual = float(np.mean(self._differences)) if self._differences else 0.0
        cut = difference > max(_MIN_DIFFERENCE, _MIN_RATIO * usual) and colour_change > _MIN_COLOUR_CHANGE
        if cut:
            self._differences.clear()
        else:
            self._differences.append(difference)
        return cut


def _thumbnail(image: Image) -> npt.NDArray[np.float32]:
    """Return the means of the cells of a grid, float32 ``[rows, columns, 3]``."""
    sides = image.shape[:2]
    rows, columns = (np.linspace(0, side, n + 1)[:-1].astype(int) for side, n in zip(sides, (_ROWS, _COLUMNS), strict=True))

    def sums(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1))

    return sums(image.astype(np.float32)) / sums(np.ones((*sides, 1), np.float32))


def _histogram(image: Image) -> npt.NDArray[np.float64]:
    """Return the share of each colour, with four levels per channel: float64 ``[64]``."""
    levels = (image // (256 // _BINS)).reshape(-1, 3).astype(np.int64)
    counts = np.bincount(levels @ [_BINS * _BINS, _BINS, 1], minlength=_BINS**3)
    return np.asarray(counts / len(levels))
