"""Builders of the parts of a GIF."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Colours = Sequence[tuple[int, int, int]]
COLOURS: Colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (9, 8, 7), (1, 2, 3), (0, 0, 0), (0, 0, 0)]
_BITS = 3
_PER_CLEAR = 2**_BITS - 2
"""How many pixels are written between codes that clear the table, so that codes keep their size."""


@dataclass(frozen=True)
class GifFrame:
    """A frame of a GIF; ``pixels`` ``[height, width]`` are numbers of colours up to 7."""

    pixels: npt.NDArray[np.uint8]
    left: int = 0
    top: int = 0
    disposal: int = 0
    transparent: int | None = None
    colours: Colours | None = None
    """The colours of the frame, if they are not those of the file."""
    hundredths: int = 10


def gif(frames: Sequence[GifFrame], width: int, height: int, *, colours: Colours | None = COLOURS) -> bytes:
    """Return a GIF of this size."""
    parts = [b"GIF89a", struct.pack("<2H3B", width, height, 0x80 | _BITS - 1 if colours else 0, 0, 0), _table(colours)]
    for frame in frames:
        flags = frame.disposal << 2 | (frame.transparent is not None)
        parts.append(b"!\xf9\4" + struct.pack("<BHB", flags, frame.hundredths, frame.transparent or 0) + b"\0")
        rows, columns = frame.pixels.shape
        own = 0x80 | _BITS - 1 if frame.colours else 0
        parts.append(b"," + struct.pack("<4HB", frame.left, frame.top, columns, rows, own) + _table(frame.colours))
        parts.append(_compressed(frame.pixels.flatten().tolist()))
    return b"".join([*parts, b";"])


def _table(colours: Colours | None) -> bytes:
    return b"".join(bytes(colour) for colour in colours or ())


def _compressed(pixels: Sequence[int]) -> bytes:
    clear = 2**_BITS
    codes = []
    for i in range(0, len(pixels), _PER_CLEAR):
        codes += [clear, *pixels[i : i + _PER_CLEAR]]
    bits = 0
    for i, code in enumerate([*codes, clear + 1]):
        bits |= code << i * (_BITS + 1)
    data = bits.to_bytes(((len(codes) + 1) * (_BITS + 1) + 7) // 8, "little")
    pieces = [data[i : i + 255] for i in range(0, len(data), 255)]
    return bytes([_BITS]) + b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"
