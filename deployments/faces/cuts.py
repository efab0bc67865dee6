"""Finds scene cuts from the frames themselves."""

from collections import deque

import numpy as np
import numpy.typing as npt

from deployments.wire import Image

_ROWS, _COLUMNS = 18, 32
_BINS = 4
_LEAST = 16.0
"""Mean difference of two thumbnails, of 255, below which nothing is a cut."""
_LEAST_COLOURS = 0.2
"""Share of the pixels whose colours another scene does not have: a camera that is swung moves all of them and keeps most colours."""
_TIMES_AS_MUCH = 3.0
"""By how many times a cut differs more than the frames before it do: a fast pan differs much too, but in each frame."""
_MEMORY = 8


class CutFinder:
    """Looks at each frame once, in order."""

    def __init__(self) -> None:
        self._before: tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]] | None = None
        self._differences: deque[float] = deque(maxlen=_MEMORY)

    def starts_scene(self, frame: Image) -> bool:
        """Whether ``frame`` shows another scene than the one before it; the first frame of all does not."""
        height, width = frame.shape[:2]  # of a large picture not every pixel is looked at
        thin = frame[:: max(1, height // (8 * _ROWS)), :: max(1, width // (8 * _COLUMNS))]
        seen, before = (_thumbnail(thin), _colours(thin)), self._before
        self._before = seen
        if before is None:
            return False
        difference = float(np.abs(seen[0] - before[0]).mean())
        colours = float(np.abs(seen[1] - before[1]).sum()) / 2
        usual = float(np.mean(self._differences)) if self._differences else 0.0
        cut = difference > max(_LEAST, _TIMES_AS_MUCH * usual) and colours > _LEAST_COLOURS
        if cut:
            self._differences.clear()
        else:
            self._differences.append(difference)
        return cut


def _thumbnail(picture: Image) -> npt.NDArray[np.float32]:
    """Means of a grid's cells, ``[rows, columns, 3]``."""
    sides = picture.shape[:2]
    rows, columns = (np.linspace(0, side, n + 1)[:-1].astype(int) for side, n in zip(sides, (_ROWS, _COLUMNS), strict=True))

    def add_up(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return np.asarray(np.add.reduceat(np.add.reduceat(values, rows, axis=0), columns, axis=1))

    return add_up(picture.astype(np.float32)) / add_up(np.ones((*sides, 1), np.float32))


def _colours(picture: Image) -> npt.NDArray[np.float64]:
    """A histogram of four steps of each of red, green and blue; its sum is 1."""
    steps = (picture // (256 // _BINS)).reshape(-1, 3).astype(np.int64)
    counts = np.bincount(steps @ [_BINS * _BINS, _BINS, 1], minlength=_BINS**3)
    return np.asarray(counts / len(steps))
