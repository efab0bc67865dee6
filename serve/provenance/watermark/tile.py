"""A frame folded to one tile of the pattern, with two samples for the side of a cell."""

import numpy as np
import numpy.typing as npt

from serve.provenance.watermark.pattern import TILE, Pattern
from serve.provenance.watermark.residual import Plane

PER_CELL = 2
"""Samples in the height and width of a cell."""
SIDE = TILE * PER_CELL
_SHAPE = np.array([0.25, 0.75, 0.75, 0.25], np.float32)
"""How the pattern, scaled up linearly, spreads a cell over the samples around it."""


def _spread() -> npt.NDArray[np.complexfloating]:
    shape = np.zeros((SIDE, SIDE), np.float32)
    for row, vertical in zip((-1, 0, 1, 2), _SHAPE, strict=True):
        for column, horizontal in zip((-1, 0, 1, 2), _SHAPE, strict=True):
            shape[row, column] = vertical * horizontal
    return np.conj(np.fft.rfft2(shape))


_MATCHED = _spread()


def matched(folded: Plane) -> Plane:
    """Return a folded residual, each sample with those over which the pattern spreads it."""
    tile = np.fft.irfft2(np.fft.rfft2(folded) * _MATCHED, s=folded.shape).astype(np.float32)
    return tile / (float(np.linalg.norm(tile)) + 1e-9)


def template_of(pattern: Pattern) -> Plane:
    """Return the fixed cells of a pattern as samples of a tile."""
    template = np.zeros((SIDE, SIDE), np.float32)
    template[::PER_CELL, ::PER_CELL] = pattern.fixed_tile()
    return template


def cells_at(tile: Plane, place: tuple[int, int]) -> Plane:
    """Return the cells ``[TILE, TILE]`` of a tile that begins at a sample, its row and column."""
    return np.roll(tile, (-place[0], -place[1]), axis=(0, 1))[::PER_CELL, ::PER_CELL]
