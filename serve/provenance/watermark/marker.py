"""Puts the watermark into frames."""

import cv2
import numpy as np
import numpy.typing as npt

from deployments.wire import Frames, Image
from serve.provenance.watermark.grid import CELL_SIZES, cell_size
from serve.provenance.watermark.pattern import PUBLISHED_SECRET, TILE, pattern_of
from serve.provenance.watermark.payload import Payload
from serve.provenance.watermark.residual import Plane, correlate, fold, resample, residual

Bytes = npt.NDArray[np.uint8]

_STRENGTHS = {2: 0.147, 4: 0.125, 8: 0.125}
"""The pattern's amplitude by the size of its cells, as a part of the local deviation as SSIM's
structure term takes it. Where cells are large, samples are further apart than the pixels of SSIM's
window, and so differ more."""
_FLAT = 58.5
"""The constant C2 of SSIM, a variance: so much is hidden even where nothing else is."""
_MAX_AMPLITUDE = 4.0
"""The largest amplitude, in levels of 255."""
_MAX_MEAN_SQUARE = 7.8
"""The largest mean square of the amplitude in a frame, which keeps the PSNR over 42 dB."""
_STEPS = 16
"""Steps of a level with which the pattern is scaled up; dither keeps what is under a level."""
_ZERO = 8
"""The level that stands for no change, because the scaled pattern is unsigned."""
_LEAST_RANGE = 8
"""The range of a frame's luma, in levels, from which on it does not count as flat."""
_VIDEO_RANGE = 219 / 255
"""How many levels of limited-range luma are one of full range."""


class Watermark:
    """The watermark of one picture or video: marks frames as they come, in order.

    The first frame settles where the pattern's tiles begin: where it already resembles the pattern
    most, which costs nothing (Miller, Doërr and Cox, *Applying informed coding and embedding to
    design a robust, high capacity watermark*, 2004). Each frame's amplitudes depend on that frame
    alone, so that it does not matter in what chunks frames come.
    """

    def __init__(self, payload: Payload, secret: bytes = PUBLISHED_SECRET) -> None:
        self._tile = pattern_of(secret).tile(payload)
        self._origin: tuple[int, int] | None = None
        self._canvas: _Canvas | None = None
        self._held = False

    @property
    def held(self) -> bool:
        """Whether any frame so far is large and varied enough to hold the watermark.

        A frame that is smaller than a tile has only a part of it, and encoders drop what is added
        to a flat one.
        """
        return self._held

    def mark(self, frames: Frames) -> Frames:
        """Return uint8 RGB frames ``[n, height, width, 3]`` with the watermark."""
        marked = np.empty_like(frames)
        for frame, out in zip(frames, marked, strict=True):
            canvas = self._canvas_for(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) if self._moved(frame) else self._canvas
            assert canvas is not None
            samples = cv2.cvtColor(canvas.sample(frame), cv2.COLOR_RGB2GRAY)
            self._held = self._held or canvas.holds(samples)
            levels = canvas.levels(samples, _STEPS)
            brighter = cv2.cvtColor(cv2.subtract(levels, _ZERO), cv2.COLOR_GRAY2RGB)
            darker = cv2.cvtColor(cv2.subtract(_ZERO, levels), cv2.COLOR_GRAY2RGB)
            cv2.add(frame, brighter, dst=out)
            cv2.subtract(out, darker, dst=out)
        return marked

    def mark_luma(self, plane: Bytes) -> None:
        """Put the watermark into a plane ``[height, width]`` of luma in limited range, in place.

        It is much quicker than ``mark`` where an encoder has such a plane anyway.
        """
        canvas = self._canvas_for(plane) if self._moved(plane) else self._canvas
        assert canvas is not None
        samples = canvas.sample(plane)
        self._held = self._held or canvas.holds(samples)
        levels = canvas.levels(samples, _STEPS * _VIDEO_RANGE)
        # Limited range ends at 235, so that nothing is clipped here that is not clipped anyway.
        cv2.add(plane, levels, dst=plane)
        cv2.subtract(plane, _ZERO, dst=plane)

    def _moved(self, frame: Image | Bytes) -> bool:
        return self._canvas is None or self._canvas.shape != frame.shape[:2]

    def _canvas_for(self, luma: Bytes) -> "_Canvas":
        if self._origin is None:
            self._origin = _best_origin(luma, self._tile)
        self._canvas = _Canvas(luma.shape[0], luma.shape[1], np.roll(self._tile, self._origin, axis=(0, 1)))
        return self._canvas


class _Canvas:
    """The pattern for frames of one size."""

    def __init__(self, height: int, width: int, tile: Plane) -> None:
        self.shape = (height, width)
        self._cell = cell_size(height, width)
        rows, columns = -(-height // self._cell), -(-width // self._cell)
        self._signs = np.tile(tile, (-(-rows // TILE), -(-columns // TILE)))[:rows, :columns]
        self._dither = _gradient_noise(rows * self._cell, columns * self._cell)

    def sample(self, frame: Bytes) -> Bytes:
        """Return one pixel of each cell, or of each four cells if they are large."""
        step, (height, width) = self._cell if self._cell == CELL_SIZES[0] else 2 * self._cell, self.shape
        return np.ascontiguousarray(frame[min(step // 2, height - 1) :: step, min(step // 2, width - 1) :: step])

    def holds(self, samples: Bytes) -> bool:
        """Return whether a frame has room for a tile and is not flat."""
        return min(self.shape) >= TILE * self._cell and int(samples.max()) - int(samples.min()) >= _LEAST_RANGE

    def levels(self, samples: Bytes, steps: float) -> Bytes:
        """Return what to add to the luma ``[height, width]``, plus ``_ZERO``."""
        rows, columns = self._signs.shape
        amplitude = _amplitudes(samples, _STRENGTHS[self._cell])
        amplitude = cv2.resize(amplitude, (columns, rows), interpolation=cv2.INTER_LINEAR)
        cells = cv2.multiply(amplitude, self._signs, scale=steps)
        cells = cv2.add(cells, _ZERO * _STEPS, dtype=cv2.CV_8U)
        scaled = cv2.resize(cells, (columns * self._cell, rows * self._cell), interpolation=cv2.INTER_LINEAR)
        cv2.add(scaled, self._dither, dst=scaled)
        levels: Bytes = np.right_shift(scaled, 4, out=scaled)[: self.shape[0], : self.shape[1]]
        return levels


def _amplitudes(samples: Bytes, strength: float) -> Plane:
    """Return the amplitude that texture hides around each sample, in levels.

    Next to an edge, the smooth side counts.
    """
    values = samples.astype(np.float32)
    mean = cv2.blur(values, (3, 3))
    variance = cv2.blur(values * values, (3, 3)) - mean * mean
    variance = cv2.erode(np.maximum(variance, 0), np.ones((3, 3), np.uint8))
    square = np.minimum(strength**2 * (2 * variance + _FLAT), _MAX_AMPLITUDE**2)
    excess = float(square.mean()) / _MAX_MEAN_SQUARE
    amplitudes: Plane = np.sqrt(square / max(1.0, excess))
    return amplitudes


def _best_origin(luma: Bytes, tile: Plane) -> tuple[int, int]:
    """Return the cell at which a frame resembles a tile that begins there most."""
    samples = resample(luma.astype(np.float32), cell_size(*luma.shape))
    match = correlate(fold(residual(samples, 1), TILE), tile)
    row, column = divmod(int(match.argmax()), TILE)
    return row, column


def _gradient_noise(height: int, width: int) -> Bytes:
    """Return dither from 0 to ``_STEPS`` - 1: Jimenez' interleaved gradient noise (2014)."""
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    return (np.mod(52.9829189 * np.mod(0.06711056 * columns + 0.00583715 * rows, 1.0), 1.0) * _STEPS).astype(np.uint8)
