"""Frames in the few colours of a palette."""

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import PIL.Image

from deployments.wire import Image

Indices = npt.NDArray[np.uint8]
"""A frame as the numbers of its colours, uint8 ``[height, width]``."""

COLOURS = 255
"""The most colours that are chosen.

A GIF has 256, of which the encoder needs one that is transparent, for pixels that do not change.
"""


def choose_palette(samples: Image) -> PIL.Image.Image:
    """Return an image whose palette fits ``samples``, uint8 RGB ``[height, width, 3]``."""
    return PIL.Image.fromarray(samples).quantize(COLOURS, PIL.Image.Quantize.MAXCOVERAGE, kmeans=1)


def colours_of(palette: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Return a palette as alpha, red, green and blue, ``[256, 4]``; the rest is transparent."""
    colours = np.zeros((256, 4), np.uint8)
    chosen = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    colours[: len(chosen)] = np.insert(chosen, 0, 255, axis=1)
    return colours


def in_palette(frames: Iterable[Image], palette: PIL.Image.Image) -> Iterator[Indices]:
    """Yield each frame (uint8 RGB ``[height, width, 3]``) in the colours of ``palette``, dithered.

    Only the rectangle that differs from the frame before is dithered again: elsewhere the pattern
    would flicker, and the file would grow.
    """
    before: Image | None = None
    indices: Indices = np.empty((0, 0), np.uint8)
    for frame in frames:
        if before is None:
            indices = _dither(frame, palette)
        else:
            changed = (frame != before).any(axis=2)
            rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
            if rows.size:
                part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
                indices = indices.copy()
                indices[part] = _dither(frame[part], palette)
        yield indices
        before = frame


def _dither(pixels: Image, palette: PIL.Image.Image) -> Indices:
    image = PIL.Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.quantize(palette=palette, dither=PIL.Image.Dither.FLOYDSTEINBERG))
