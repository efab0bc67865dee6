"""Conversion of decoded video frames to the RGB pixels that a player shows."""

from fractions import Fraction

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter

from deployments.wire import Image
from serve.media.colour.space import ColourSpace
from serve.media.decode.geometry import Placement, placement_of, square_size
from serve.media.decode.wide_colour import WideColour, wide_colour_of
from serve.media.errors import MediaError

# Numbers of H.273, which are FFmpeg's AVCOL_SPC_...
_KNOWN_MATRICES = frozenset((0, 1, 4, 5, 6, 7, 9))
_UNSPECIFIED = 2
_OF_PRIMARIES = 12
"""The matrix that the primaries tell, which have the numbers of their matrices."""
_OTHER_COLOURS = {
    8: "YCgCo",
    10: "BT.2020 with constant luminance",
    11: "YDzDx",
    13: "YUV with constant luminance",
    14: "ICtCp",
}


class ShownPixels:
    """Converts the frames of one video to uint8 RGB ``[height, width, 3]``, as they are shown.

    They are turned upright, have square pixels where ``aspect`` is the shape of the stored ones,
    lie on white where they are transparent, and have the colours of BT.709. All frames get the size
    of the first one, because the frames of a recorded video call change their size with the
    network's speed, and their rotation when a phone is turned.
    """

    def __init__(self, aspect: Fraction | None, max_pixels: int) -> None:
        self._aspect = aspect
        self._max_pixels = max_pixels
        self._size: tuple[int, int] | None = None
        self._reformatter = VideoReformatter()
        self._wide: WideColour | None = None

    def of(self, frame: VideoFrame) -> Image:
        """Return the pixels of ``frame``."""
        placement = placement_of(frame)
        if self._size is None:
            width, height = square_size(frame.width, frame.height, aspect=self._aspect, max_pixels=self._max_pixels)
            self._size = (height, width) if placement.lies else (width, height)
        width, height = self._size[::-1] if placement.lies else self._size
        space = wide_colour_of(frame)
        if frame.format.name == "pal8" or any(component.is_alpha for component in frame.format.components):
            rgba = np.asarray(self._reformat(frame, width=width, height=height, format_="rgba").to_ndarray(), np.uint8)
            colours = rgba[..., :3] if space is None else self._narrow(frame, space, width=width, height=height)
            pixels = _on_white(colours, rgba[..., 3:])
        elif space is not None:
            pixels = self._narrow(frame, space, width=width, height=height)
        else:
            pixels = np.asarray(self._reformat(frame, width=width, height=height, format_="rgb24").to_ndarray(), np.uint8)
        return pixels if placement == Placement() else placement.apply(pixels)

    def _narrow(self, frame: VideoFrame, space: ColourSpace, width: int, height: int) -> Image:
        if self._wide is None or not self._wide.fits(space, width, height):
            self._wide = WideColour(space, width, height)
        converted = self._wide.convert(self._reformat(frame, width=width, height=height, format_="rgb48le"))
        return np.asarray(converted.reformat(format="rgb24").to_ndarray(), np.uint8)

    def _reformat(self, frame: VideoFrame, width: int, height: int, format_: str) -> VideoFrame:
        colorspace = matrix_of(frame.colorspace, frame.color_primaries, frame.height)
        if frame.colorspace not in (colorspace, _UNSPECIFIED):
            frame.colorspace = colorspace  # FFmpeg refuses a frame with another number
        is_scaled = (frame.width, frame.height) != (width, height)
        # Where nothing is scaled, bicubic would only make the conversion of colours slower.
        interpolation = Interpolation.BICUBIC if is_scaled else Interpolation.BILINEAR
        return self._reformatter.reformat(frame, width, height, format_, src_colorspace=colorspace, interpolation=interpolation)


def matrix_of(stated: int, primaries: int, height: int) -> int:
    """Return the matrix by which YUV becomes RGB, as H.273 counts.

    Where none is stated, or a number that means nothing, players assume BT.709 from 720 lines on,
    and BT.601 below. Raises MediaError for colours that are stored in another way.
    """
    if stated in _OTHER_COLOURS:
        raise MediaError(
            f"the video stores its colours as {_OTHER_COLOURS[stated]}, which is not supported; re-encode it as BT.709"
        )
    if stated == _OF_PRIMARIES and primaries:  # no primaries have the number of RGB
        stated = primaries
    if stated in _KNOWN_MATRICES:
        return stated
    return int(Colorspace.ITU709 if height >= 720 else Colorspace.ITU601)


def _on_white(colours: Image, alpha: Image) -> Image:
    """Return ``colours`` (``[height, width, 3]``) by ``alpha`` (``[..., 1]``) on a white ground."""
    weighted = colours.astype(np.uint16) * alpha + 255 * (255 - alpha.astype(np.uint16))
    return ((weighted + 127) // 255).astype(np.uint8)
