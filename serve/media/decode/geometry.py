"""How a stored frame lies on the screen: turned, mirrored, and with pixels that are not square."""

import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import numpy as np
from av.sidedata.sidedata import SideDataContainer, Type
from av.video.frame import VideoFrame

from deployments.wire import Image

_MATRIX = struct.Struct("=9i")
_MOST_STRETCHED = 16
"""The largest pixel aspect ratio that is believed; what states more is damaged."""


@dataclass(frozen=True)
class Placement:
    """How a frame is shown: mirrored left to right if ``mirrored``, then turned clockwise."""

    quarter_turns: int = 0
    mirrored: bool = False

    @property
    def lies(self) -> bool:
        """Whether width and height change places."""
        return self.quarter_turns % 2 == 1

    def apply(self, pixels: Image) -> Image:
        """Return the stored ``pixels`` as they are shown."""
        if self.mirrored:
            pixels = pixels[:, ::-1]
        return np.ascontiguousarray(np.rot90(pixels, -self.quarter_turns))


def placement_of(frame: VideoFrame) -> Placement:
    """Return what the display matrix of ``frame`` says, rounded to a quarter turn."""
    # PyAV's annotations know only one kind of side data.
    side_data = cast(SideDataContainer, frame.side_data)
    try:
        matrix = bytes(side_data[Type.DISPLAYMATRIX])
    except KeyError:
        return Placement()
    if len(matrix) < _MATRIX.size:
        return Placement()
    a, b, _, c, d, *_ = _MATRIX.unpack_from(matrix)
    determinant = a * d - b * c
    if determinant == 0:
        return Placement()
    mirrored = determinant < 0
    # A mirrored matrix is a mirror from left to right, and then a turn.
    turn = math.atan2(-b, -a) if mirrored else math.atan2(b, a)
    return Placement(round(turn / (math.pi / 2)) % 4, mirrored)


def square_size(width: int, height: int, aspect: Fraction | None, max_pixels: int) -> tuple[int, int]:
    """Return the size in which a frame whose pixels have the shape ``aspect`` has square pixels.

    The shorter side grows, as in most players. Where that would be more than ``max_pixels``, both
    sides shrink together.
    """
    if not aspect or not Fraction(1, _MOST_STRETCHED) <= aspect <= _MOST_STRETCHED:
        return width, height
    wide, high = (width * aspect, Fraction(height)) if aspect > 1 else (Fraction(width), height / aspect)
    scale = min(1.0, math.sqrt(max_pixels / (wide * high)))
    if scale < 1:
        return max(1, int(wide * scale)), max(1, int(high * scale))
    return max(1, round(wide)), max(1, round(high))
