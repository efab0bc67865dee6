"""Builders of the parts of a PNG."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and its checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@dataclass(frozen=True)
class PngFrame:
    """A frame of an animated PNG, whose ``pixels`` are ``[height, width, channels]``."""

    pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    left: int = 0
    top: int = 0
    disposal: int = 0
    blending: int = 0
    delay: tuple[int, int] = (1, 10)


def animated_png(frames: Sequence[PngFrame], kind: int, *shared: bytes, still: PngFrame | None = None) -> bytes:
    """Return an animated PNG of this kind of colours, with the ``shared`` chunks.

    Its size is that of ``still``, which is no part of the animation, or else of the first frame.
    """
    shown = frames[0] if still is None else still
    height, width = shown.pixels.shape[:2]
    header = struct.pack(">2I5B", width, height, 8 * shown.pixels.itemsize, kind, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"acTL", struct.pack(">2I", len(frames), 0)), *shared]
    if still is not None:
        parts.append(chunk(b"IDAT", _compressed(still)))
    number = 0
    for i, frame in enumerate(frames):
        height, width = frame.pixels.shape[:2]
        place = (number, width, height, frame.left, frame.top)
        parts.append(chunk(b"fcTL", struct.pack(">5I2H2B", *place, *frame.delay, frame.disposal, frame.blending)))
        if i == 0 and still is None:
            parts.append(chunk(b"IDAT", _compressed(frame)))
        else:
            number += 1
            parts.append(chunk(b"fdAT", struct.pack(">I", number) + _compressed(frame)))
        number += 1
    return b"".join([*parts, chunk(b"IEND", b"")])


def _compressed(frame: PngFrame) -> bytes:
    rows = frame.pixels.astype(f">u{frame.pixels.itemsize}")
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
