"""Smooths landmarks over time, by as many frames before as behind, so that what moves is not trailed.

At each frame a straight line in time is fitted to every coordinate (Savitzky and Golay's filter, 1964, of degree 1), over the widest
span in which the face moves evenly: in which the line misses the points by no more than their noise does, as in Goldenshluger and
Nemirovski ("On spatially adaptive estimation of nonparametric regression", 1997). A face at rest or in a steady pan is averaged over
the whole span; where it starts, stops or turns, over a few frames or none.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Landmarks = npt.NDArray[np.floating]
"""``[5, 2]``, pixels."""

_LEAST_NOISE = 0.003
"""Of the distance of the eyes: below it nobody sees a face tremble."""


def smooth(points: Sequence[Landmarks], times: Sequence[float], at: int, tolerance: float) -> Landmarks:
    """``points[at]`` without its jitter.

    ``times`` in seconds, rising. ``tolerance``: by how many times the noise the points of a span may miss the line through them. A
    point that has not as many neighbours on one side as on the other uses the nearer ones alone; one without any comes back as it is.
    """
    values = np.asarray(points, np.float64).reshape(len(points), -1)
    moments = np.asarray(times, np.float64) - times[at]
    eyes = float(np.linalg.norm(points[at][1] - points[at][0]))
    noise = max(_noise(values), _LEAST_NOISE * eyes)
    for reach in range(min(at, len(points) - 1 - at), 0, -1):
        span = slice(at - reach, at + reach + 1)
        level, missed = _line(values[span], moments[span])
        if missed <= tolerance * noise:
            return np.asarray(level.reshape(points[at].shape), points[at].dtype)
    return points[at]


def _noise(values: npt.NDArray[np.float64]) -> float:
    """The standard deviation of what no smooth motion explains: from third differences, by their median, ``[n, coordinates]``."""
    if len(values) < 4:
        return 0.0
    thirds = np.abs(np.diff(values, n=3, axis=0))
    return float(np.median(thirds)) / 0.6745 / 20**0.5  # the median of a normal's absolute value; 1 + 9 + 9 + 1


def _line(values: npt.NDArray[np.float64], moments: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Least squares: the line's values at moment 0, and the root of the mean square by which it misses the points."""
    centre = moments.mean()
    spread = moments - centre
    slopes = spread @ values / max(float(spread @ spread), 1e-12)
    mean = values.mean(axis=0)
    missed = values - mean - np.outer(spread, slopes)
    degrees = max(len(values) - 2, 1)
    return mean - slopes * centre, float(np.sqrt((missed**2).sum(axis=0).mean() / degrees))
