"""A GIF or an animated PNG as what its frames draw on a canvas."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image

from deployments.wire import Image
from serve.media.boundary import reading
from serve.media.decode.canvas import Canvas, Piece
from serve.media.images import DAMAGED, to_rgba


@dataclass(frozen=True)
class Composition:
    """The ``pieces`` that are drawn one after the other on a canvas of ``size`` pixels.

    ``profile`` is the colour profile of all pieces, and ``turn`` what turns the canvas upright.
    """

    size: tuple[int, int]
    pieces: Sequence[Piece]
    profile: bytes | None = None
    turn: PIL.Image.Transpose | None = None

    def check(self) -> None:
        """Raise ``MediaError`` if a piece cannot be decoded."""
        for piece in self.pieces:
            with reading(*DAMAGED):
                _open(piece).load()

    def pictures(self) -> Iterator[Image]:
        """Yield the canvas after each piece as uint8 RGB ``[height, width, 3]``."""
        canvas = Canvas(*self.size)
        for piece in self.pieces:
            with reading(*DAMAGED):
                canvas.draw(self._decode(piece), piece)
                shown = canvas.on_white()
                pixels = np.asarray(shown if self.turn is None else shown.transpose(self.turn))
            yield pixels

    def _decode(self, piece: Piece) -> PIL.Image.Image:
        image = _open(piece)
        if self.profile:
            image.info["icc_profile"] = self.profile
        return to_rgba(image)


def _open(piece: Piece) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(piece.file()), formats=("GIF", "PNG"))
