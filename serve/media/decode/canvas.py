"""The canvas on which the frames of animated PNGs and GIFs are drawn, as browsers do.

Pillow draws them as well, but in the mode of the file, which may have no transparency, and with
rules for alpha and for the first frame that differ from the specification of PNG.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from fractions import Fraction

import PIL.Image

Box = tuple[int, int, int, int]
"""The left, upper, right and lower edge of a rectangle, in pixels."""
_TRANSPARENT = (0, 0, 0, 0)


class Disposal(Enum):
    """What becomes of the rectangle of a frame before the next frame is drawn."""

    KEEP = auto()
    CLEAR = auto()
    """It becomes transparent."""
    RESTORE = auto()
    """It becomes what it was before the frame."""


@dataclass(frozen=True)
class Piece:
    """What a frame changes: the rectangle ``box`` of the canvas.

    ``blends`` says whether its pixels lie over what is there, rather than replace it. ``seconds``
    are those for which it says that it is shown. ``file`` returns its pixels as an image file.
    """

    box: Box
    disposal: Disposal
    blends: bool
    seconds: Fraction
    file: Callable[[], bytes]


class Canvas:
    """A picture of ``width`` x ``height`` pixels that is transparent at first."""

    def __init__(self, width: int, height: int) -> None:
        self._image = PIL.Image.new("RGBA", (width, height), _TRANSPARENT)
        self._is_opaque = False
        """Whether it is known to be opaque, since looking at all pixels takes long."""
        self._drawn: Piece | None = None
        self._before: PIL.Image.Image | None = None
        """What was in the rectangle of the last piece, if that is to be restored."""

    def draw(self, pixels: PIL.Image.Image, piece: Piece) -> None:
        """Dispose of the last piece, and draw the RGBA ``pixels`` of the next one."""
        self._dispose()
        self._drawn = piece
        self._before = self._image.crop(piece.box) if piece.disposal is Disposal.RESTORE else None
        levels = pixels.getchannel("A").histogram()
        is_opaque = levels[255] == pixels.width * pixels.height
        if is_opaque or not piece.blends:
            self._image.paste(pixels, piece.box)
            self._is_opaque &= is_opaque
        elif any(levels[1:255]):
            self._image.alpha_composite(pixels, piece.box[:2])
        else:  # the same, in half of the time
            self._image.paste(pixels, piece.box, pixels)

    def on_white(self) -> PIL.Image.Image:
        """Return the picture as RGB on a white ground."""
        self._is_opaque = self._is_opaque or self._image.getchannel("A").getextrema() == (255, 255)
        if self._is_opaque:
            return self._image.convert("RGB")
        white = PIL.Image.new("RGB", self._image.size, "white")
        white.paste(self._image, mask=self._image)
        return white

    def _dispose(self) -> None:
        if self._drawn is None or self._drawn.disposal is Disposal.KEEP:
            return
        self._image.paste(_TRANSPARENT if self._before is None else self._before, self._drawn.box)
        self._is_opaque = False
