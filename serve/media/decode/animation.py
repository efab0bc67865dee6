"""Decoding of GIF, animated WebP and still images with Pillow."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction

import PIL.Image

from deployments.wire import Image
from serve.media.boundary import reading
from serve.media.decode.claims import open_within
from serve.media.decode.gif_blocks import has_end
from serve.media.decode.source import STILL_FPS, Source, SourceLimits
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import DAMAGED, check_size, first_shown, to_pixels

_DEFAULT_DURATION = Fraction(100, 1000)
_SHORTEST = Fraction(10, 1000)
"""Browsers show a frame that states this duration, or less, for ``_DEFAULT_DURATION``."""
_LARGEST_DENOMINATOR = 65_535


class _Animation(Source):
    """An animated or still image; ``durations`` are the seconds for which each frame is shown.

    ``first`` is the number of the first frame that belongs to the animation.
    """

    def __init__(self, image: PIL.Image.Image, durations: list[Fraction], first: int) -> None:
        super().__init__(len(durations), sum(durations, Fraction(0)), pixels=image.width * image.height)
        self._image = image
        self._durations = durations
        self._first = first

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        time = Fraction(0)
        for i, duration in enumerate(self._durations, start=self._first):
            with reading(*DAMAGED):
                self._image.seek(i)
            yield to_pixels(self._image), time
            time += duration

    def at_fps(self, fps: Fraction) -> Source:
        """Return the same frames, each shown for 1 / ``fps`` seconds."""
        return _Animation(self._image, [1 / fps] * self.count, self._first)


def open_animation(data: bytes, limits: SourceLimits) -> Source:
    """Open a GIF, WebP, PNG or JPEG file as a video; a still image becomes one frame.

    Raises ``MediaError`` for a damaged or truncated file and ``MediaTooLarge`` for one that exceeds
    ``limits``.
    """
    image = open_within(data, limits.pixels, limits.scans)
    if image.format == "GIF" and not has_end(data):
        raise MediaError("the GIF is truncated: its end is missing; send the complete file")
    with reading(*DAMAGED):
        first = first_shown(image)
        durations = _read_durations(image, limits, first)
    source = _Animation(image, durations, first)
    if source.count > 1:
        limits.check_seconds(float(source.duration))
    return source


def _read_durations(image: PIL.Image.Image, limits: SourceLimits, first: int) -> list[Fraction]:
    """Return the seconds for which each frame is shown, and check each frame against ``limits``."""
    # A HEIC file may hold several still images, of which viewers show one.
    count = 1 if image.format == "HEIF" else _count_frames(image, limits) - first
    if count == 1:
        return [1 / STILL_FPS]
    limits.check_frames(count)
    durations = []
    for i in range(first, first + count):
        image.seek(i)
        check_size(image, limits.pixels)  # a later frame may be larger than the first
        if image.format in ("WEBP", "AVIF"):
            image.load()  # only then does Pillow know the duration of the frame
        durations.append(_shown_for(image.info.get("duration") or 0))
    return durations


def _shown_for(milliseconds: float) -> Fraction:
    """Return for how many seconds browsers show a frame that states this duration."""
    # Pillow divides the two numbers in which an animated PNG states a duration, such as 1001/30000.
    stated = Fraction(milliseconds / 1000).limit_denominator(_LARGEST_DENOMINATOR)
    return stated if stated > _SHORTEST else _DEFAULT_DURATION


def _count_frames(image: PIL.Image.Image, limits: SourceLimits) -> int:
    """Return the number of frames, or one more than ``limits`` accepts.

    Only the header of a GIF does not state it. Pillow would walk through millions of frames of one
    to count them.
    """
    if image.format != "GIF":
        return getattr(image, "n_frames", 1)
    count = 1
    try:
        with _canvas_limit(limits.pixels):
            while count <= limits.frames:
                image.seek(count)
                count += 1
    except EOFError:
        image.seek(0)
    except PIL.Image.DecompressionBombError:
        raise MediaTooLarge(
            f"a frame is larger than {limits.pixels} pixels, the most that are accepted: scale it down"
        ) from None
    return count


@contextmanager
def _canvas_limit(pixels: int) -> Iterator[None]:
    """Let Pillow refuse frames that make a GIF larger than ``pixels`` before it allocates them.

    Pillow has one limit for the process, of which it accepts the double with a warning.
    """
    before = PIL.Image.MAX_IMAGE_PIXELS
    PIL.Image.MAX_IMAGE_PIXELS = pixels // 2
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = before
