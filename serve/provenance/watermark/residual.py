"""What is left of a frame when everything that its surroundings predict is taken away.

Edges and textures are far stronger than the pattern. Removing the local mean, dividing by the local
deviation and flattening the spectrum leaves a residual in which they weigh little: it is the linear
detector that suits noise with the statistics of pictures (Depovere, Kalker and Linnartz, *Improved
watermark detection reliability using filtering before correlation*, 1998).
"""

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]
"""Values ``[height, width]``."""

_SMALLEST = 8
_CLIP = 2.5


class Filter(NamedTuple):
    """What counts as predictable: deviations of Gaussians in cells, and the flattening."""

    mean: float
    """The Gaussian of the local mean."""
    window: float
    """The Gaussian of the local deviation."""
    floor: float
    """A variance, in levels, that is added to the local one."""
    flattening: float
    """The power of its amplitude by which each frequency is divided; 1 leaves only the phases."""
    neighbours: int
    """The height and width in frequencies over which that amplitude is averaged."""


PLAIN = Filter(mean=1.0, window=2.0, floor=1.0, flattening=0.85, neighbours=9)
COMPRESSED = Filter(mean=0.7, window=1.5, floor=0.3, flattening=1.1, neighbours=5)
"""Suits frames of which H.264 and JPEG have smoothed much: they show the pattern where they have
little else."""


def resample(luma: Plane, pixels: float) -> Plane:
    """Return ``luma`` with one sample for each square of ``pixels`` by ``pixels``."""
    height, width = luma.shape
    size = max(_SMALLEST, round(width / pixels)), max(_SMALLEST, round(height / pixels))
    if size == (width, height):
        return luma
    resampled: Plane = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if pixels > 1 else cv2.INTER_CUBIC)
    return resampled


def residual(samples: Plane, per_cell: int, filter_: Filter = PLAIN) -> Plane:
    """Return the residual of samples, of which a cell has ``per_cell`` in each direction."""
    detail = samples - cv2.GaussianBlur(samples, (0, 0), filter_.mean * per_cell)
    deviation = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), filter_.window * per_cell) + filter_.floor)
    spectrum = np.fft.rfft2(np.clip(detail / deviation, -_CLIP, _CLIP))
    square = filter_.neighbours, filter_.neighbours
    power = cv2.blur((spectrum.real**2 + spectrum.imag**2).astype(np.float32), square)
    flat = spectrum / (power + 1e-9) ** (filter_.flattening / 2)
    return np.fft.irfft2(flat, s=samples.shape).astype(np.float32)


def fold(plane: Plane, side: int) -> Plane:
    """Return the sum ``[side, side]`` of all squares of ``side`` by ``side`` samples."""
    height, width = plane.shape
    rows, columns = -(-height // side), -(-width // side)
    padded = np.zeros((rows * side, columns * side), np.float32)
    padded[:height, :width] = plane
    folded: Plane = padded.reshape(rows, side, columns, side).sum(axis=(0, 2))
    return folded


def correlate(plane: Plane, template: Plane) -> Plane:
    """Return the circular correlation: at ``[y, x]`` that with the template moved by y and x."""
    product = np.fft.rfft2(plane) * np.conj(np.fft.rfft2(template))
    return np.fft.irfft2(product, s=plane.shape).astype(np.float32)
