"""What is left of a frame when everything that its surroundings predict is taken away.

Edges and textures are far stronger than the pattern. Removing the local mean, dividing by the local
deviation and flattening the spectrum leaves a residual in which they weigh little: it is the linear
detector that suits noise with the statistics of pictures (Depovere, Kalker and Linnartz, *Improved
watermark detection reliability using filtering before correlation*, 1998).
"""

import cv2
import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[np.float32]
"""Values ``[height, width]``."""

_SMALLEST = 8
_CLIP = 2.5
_FLATTENING = 0.85
"""The power of its amplitude by which each frequency is divided; 1 would keep only the phases."""
_NEIGHBOURS = (9, 9)
"""How many neighbouring frequencies are averaged for that amplitude."""


def resample(luma: Plane, pixels: float) -> Plane:
    """Return ``luma`` with one sample for each square of ``pixels`` by ``pixels``."""
    height, width = luma.shape
    size = max(_SMALLEST, round(width / pixels)), max(_SMALLEST, round(height / pixels))
    if size == (width, height):
        return luma
    resampled: Plane = cv2.resize(luma, size, interpolation=cv2.INTER_AREA if pixels > 1 else cv2.INTER_CUBIC)
    return resampled


def residual(samples: Plane, per_cell: int) -> Plane:
    """Return the residual of samples, of which a cell has ``per_cell`` in each direction."""
    detail = samples - cv2.GaussianBlur(samples, (0, 0), float(per_cell))
    deviation = np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 2.0 * per_cell) + 1)
    spectrum = np.fft.rfft2(np.clip(detail / deviation, -_CLIP, _CLIP))
    power = cv2.blur((spectrum.real**2 + spectrum.imag**2).astype(np.float32), _NEIGHBOURS)
    flat = spectrum / (power + 1e-9) ** (_FLATTENING / 2)
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
