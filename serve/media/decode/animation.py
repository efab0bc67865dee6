"""Decoding of GIF, animated PNG, WebP and AVIF, and still images."""

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import islice

import PIL.Image

from deployments.wire import Image
from serve.media.boundary import reading
from serve.media.decode.canvas import Piece
from serve.media.decode.claims import open_within
from serve.media.decode.composition import Composition
from serve.media.decode.gif_frames import gif_frames
from serve.media.decode.png_frames import png_frames
from serve.media.decode.source import STILL_FPS, Source, SourceLimits
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import DAMAGED, check_size, first_shown, to_pixels, turn_of
from serve.media.strip.png import strip_png

_DEFAULT_DURATION = Fraction(100, 1000)
_SHORTEST = Fraction(10, 1000)
"""Browsers show a frame that states this duration, or less, for ``_DEFAULT_DURATION``."""
_LARGEST_DENOMINATOR = 65_535


class _Animation(Source):
    """An animated or still image; ``durations`` are the seconds for which each frame is shown.

    ``pictures`` decodes the frames, and can be called again.
    """

    def __init__(self, pictures: Callable[[], Iterator[Image]], durations: list[Fraction], *, pixels: int) -> None:
        super().__init__(len(durations), sum(durations, Fraction(0)), pixels=pixels)
        self._pictures = pictures
        self._durations = durations

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        time = Fraction(0)
        for picture, duration in zip(self._pictures(), self._durations, strict=True):
            yield picture, time
            time += duration

    def at_fps(self, fps: Fraction) -> Source:
        """Return the same frames, each shown for 1 / ``fps`` seconds."""
        return _Animation(self._pictures, [1 / fps] * self.count, pixels=self.pixels)


def open_animation(data: bytes, limits: SourceLimits) -> Source:
    """Open a GIF, WebP, PNG or JPEG file as a video; a still image becomes one frame.

    Raises ``MediaError`` for a damaged or truncated file and ``MediaTooLarge`` for one that exceeds
    ``limits``.
    """
    image = open_within(data, limits.pixels, limits.scans)
    with reading(*DAMAGED):
        if image.format == "GIF" or (image.format == "PNG" and getattr(image, "n_frames", 1) > 1):
            source = _open_composition(image, data, limits)
        else:
            source = _open_sequence(image, limits)
    if source.count > 1:
        limits.check_seconds(float(source.duration))
    return source


def _open_composition(image: PIL.Image.Image, data: bytes, limits: SourceLimits) -> Source:
    """Open a GIF or an animated PNG, whose frames change parts of a picture."""
    pieces = _pieces_of(image, data, limits)
    width, height = (max(side, *(piece.box[2 + i] for piece in pieces)) for i, side in enumerate(image.size))
    if width * height > limits.pixels:
        raise MediaTooLarge(f"a frame is larger than {limits.pixels} pixels, the most that are accepted: scale it down")
    composition = Composition((width, height), pieces, profile=image.info.get("icc_profile"), turn=turn_of(image))
    durations = [1 / STILL_FPS]
    if len(pieces) > 1:
        composition.check()
        durations = [_shown_for(piece.seconds) for piece in pieces]
    return _Animation(composition.pictures, durations, pixels=width * height)


def _pieces_of(image: PIL.Image.Image, data: bytes, limits: SourceLimits) -> list[Piece]:
    """Return the frames of a GIF or an animated PNG, and check their number against ``limits``.

    The header of a GIF does not state it, and there may be millions of them, which are not read.
    """
    if image.format == "GIF":
        least, most, pieces = 1, limits.frames + 1, gif_frames(data)
    else:
        least = most = getattr(image, "n_frames", 1) - first_shown(image)
        limits.check_frames(most)
        pieces = png_frames(strip_png(data))
    found = list(islice(pieces, most))
    limits.check_frames(len(found))
    if len(found) < least:
        raise MediaError(f"{DAMAGED[0]}; {DAMAGED[1]}")
    return found


def _open_sequence(image: PIL.Image.Image, limits: SourceLimits) -> Source:
    """Open a still image, or an animation whose frames Pillow composes as they are shown."""
    # A HEIC file may hold several still images, of which viewers show one.
    count: int = 1 if image.format == "HEIF" else getattr(image, "n_frames", 1)
    limits.check_frames(count)
    durations = [1 / STILL_FPS] if count == 1 else [_duration_of(image, i, limits.pixels) for i in range(count)]
    numbers = [first_shown(image)] if count == 1 else range(count)
    return _Animation(partial(_pictures, image, numbers), durations, pixels=image.width * image.height)


def _pictures(image: PIL.Image.Image, numbers: Sequence[int]) -> Iterator[Image]:
    for i in numbers:
        with reading(*DAMAGED):
            image.seek(i)
        yield to_pixels(image)


def _duration_of(image: PIL.Image.Image, number: int, max_pixels: int) -> Fraction:
    """Return for how many seconds a frame is shown, and check its size."""
    image.seek(number)
    check_size(image, max_pixels)  # a later frame may be larger than the first
    image.load()  # only then does Pillow know the duration of the frame
    return _shown_for(Fraction((image.info.get("duration") or 0) / 1000).limit_denominator(_LARGEST_DENOMINATOR))


def _shown_for(stated: Fraction) -> Fraction:
    """Return for how many seconds browsers show a frame that states this duration."""
    return stated if stated > _SHORTEST else _DEFAULT_DURATION
