"""Smooths landmarks over time, over as many frames before as after, so that motion does not lag.

At each frame a straight line in time is fitted to every coordinate (the filter of Savitzky and
Golay, 1964, of degree 1), over the widest span in which the face moves evenly. That is a span in
which the points miss the line by no more than their noise, as in Goldenshluger and Nemirovski ("On
spatially adaptive estimation of nonparametric regression", 1997). A face at rest or in a steady pan
is averaged over the whole span; where it starts, stops or turns, it is averaged over few frames or
none.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Landmarks = npt.NDArray[np.floating]
"""``[5, 2]``, in pixels."""

_MIN_NOISE = 0.003
"""The noise, as a share of the distance between the eyes, below which jitter is invisible."""


def smooth(points: Sequence[Landmarks], times: Sequence[float], *, at: int, tolerance: float) -> Landmarks:
    """Return ``points[at]`` without its jitter.

    ``times`` are in seconds and ascending. ``tolerance`` is how far, in multiples of the noise, the
    points of a span may miss the line through them. A point with fewer neighbours on one side uses
    only as many on the other; a point without neighbours on one side is returned unchanged.
    """
    values = np.asarray(points, np.float64).reshape(len(points), -1)
    moments = np.asarray(times, np.float64) - times[at]
    eyes = float(np.linalg.norm(points[at][1] - points[at][0]))
    noise = max(_noise(values), _MIN_NOISE * eyes)
    for reach in range(min(at, len(points) - 1 - at), 0, -1):
        span = slice(at - reach, at + reach + 1)
        level, error = _line(values[span], moments[span])
        if error <= tolerance * noise:
            return np.asarray(level.reshape(points[at].shape), points[at].dtype)
    return points[at]


def _noise(values: npt.NDArray[np.float64]) -> float:
    """Estimate the noise of ``[n, coordinates]`` by the median of the third differences.

    It is the standard deviation of what no smooth motion explains.
    """
    if len(values) < 4:
        return 0.0
    thirds = np.abs(np.diff(values, n=3, axis=0))
    # 0.6745 is the median of |N(0, 1)|; 20 = 1 + 9 + 9 + 1 is the variance of a third difference.
    return float(np.median(thirds)) / 0.6745 / 20**0.5


def _line(values: npt.NDArray[np.float64], moments: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Fit a line by least squares; return its values at moment 0 and the RMS error."""
    centre = moments.mean()
    spread = moments - centre
    slopes = spread @ values / max(float(spread @ spread), 1e-12)
    mean = values.mean(axis=0)
    errors = values - mean - np.outer(spread, slopes)
    degrees = max(len(values) - 2, 1)
    return mean - slopes * centre, float(np.sqrt((errors**2).sum(axis=0).mean() / degrees))
