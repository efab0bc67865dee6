"""The visible label of GB 45438-2025: "AI生成", made by AI, in the lower right corner of frames.

`label.png` is its text, drawn with Noto Sans CJK Medium (SIL Open Font License 1.1): no font with
Chinese characters is installed everywhere.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from deployments.wire import Frames

SECONDS = Fraction(2)
"""How long videos show the label from their first frame on, which the standard asks for."""
SHARE = 0.06
"""The height of the text as a share of the shorter side. The standard asks for 0.05."""
_MARGIN_SHARE = 0.03
_SHADE = 0.55
"""How dark the ground around the text becomes, so that it can be read on any picture."""


class VisibleLabel:
    """Draws the label into the frames of one file, which come in order."""

    def __init__(self) -> None:
        self._ends: Fraction | None = None

    def draw(self, frames: Frames, times: Sequence[Fraction]) -> Frames:
        """Return uint8 RGB ``[n, height, width, 3]`` with the label on those that must show it.

        ``times`` are those at which the frames are shown, in seconds. Frames that do not change are
        not copied.
        """
        if self._ends is None:
            self._ends = times[0] + SECONDS
        shown = sum(time < self._ends for time in times)
        if not shown:
            return frames
        drawn = frames.copy()
        height, width = frames.shape[1:3]
        text = _mask(height, width)
        rows, columns = text.shape[:2]
        margin = math.ceil(_MARGIN_SHARE * min(height, width))
        bottom, right = max(rows, height - margin), max(columns, width - margin)
        corner = drawn[:shown, bottom - rows : bottom, right - columns : right]
        dark = corner * (1 - _SHADE)
        corner[:] = np.rint(dark + (255 - dark) * text).astype(np.uint8)
        return drawn


@cache
def _text() -> npt.NDArray[np.uint8]:
    with PIL.Image.open(Path(__file__).with_name("label.png")) as image:
        return np.asarray(image.convert("L"))


@cache
def _mask(height: int, width: int) -> npt.NDArray[np.float32]:
    """Return how much of each pixel in a frame's corner is text, 0 to 1 ``[h, w, 1]``."""
    text = _text()
    rows = max(1, math.ceil(SHARE * min(height, width)))
    columns = min(width, max(1, round(rows * text.shape[1] / text.shape[0])))
    pad = min(math.ceil(rows / 4), (height - rows) // 2, (width - columns) // 2)
    small = cv2.resize(text, (columns, rows), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    return np.pad(small, pad)[..., None]
