"""A video as a source of frames: its length, its frame rate, and its frames with their times."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from deployments.wire import Frames, Image
from serve.media.errors import MediaTooLarge
from serve.media.sound import Sound

CHUNK = 4
"""The number of frames in each chunk of ``Source.chunks``, except perhaps the last one."""
STILL_FPS = Fraction(16)
"""The frame rate of a still image, and of a video that does not state one."""


@dataclass(frozen=True)
class SourceLimits:
    """The largest video that is accepted; anything larger is refused before a frame is decoded.

    ``pixels`` is the limit for one frame, ``seconds`` the limit for the duration, ``scans`` that
    for a still JPEG.
    """

    frames: int
    seconds: float
    pixels: int
    scans: int = 100

    def check_frames(self, count: int) -> None:
        """Raise ``MediaTooLarge`` if ``count`` exceeds the number of frames that is accepted."""
        if count > self.frames:
            raise MediaTooLarge(f"the video has at least {count} frames; at most {self.frames} are accepted: shorten the video")

    def check_seconds(self, seconds: float) -> None:
        """Raise ``MediaTooLarge`` if ``seconds`` exceeds the duration that is accepted."""
        if seconds > self.seconds:
            raise MediaTooLarge(
                f"the video lasts {seconds:.1f} seconds; at most {self.seconds:g} are accepted: shorten the video"
            )

    def check_pixels(self, width: int, height: int) -> None:
        """Raise ``MediaTooLarge`` if a frame of this size exceeds the pixels that are accepted."""
        if width * height > self.pixels:
            raise MediaTooLarge(
                f"the video has {width} x {height} pixels; at most {self.pixels} pixels are accepted: scale it down"
            )


@dataclass(frozen=True)
class TimedFrames:
    """Consecutive frames and the time in seconds at which each is shown.

    ``frames`` is uint8 RGB ``[n, height, width, 3]``; ``index`` is the number of the first frame,
    counted from 0. ``changed`` says whether a model has changed any of them since they were read.
    """

    index: int
    frames: Frames
    times: tuple[Fraction, ...]
    changed: bool = False


class Source(ABC):
    """A video with ``count`` frames that lasts ``duration`` seconds.

    ``pixels`` is the number of pixels in a frame, by the header. ``audio`` is the sound that
    belongs to it, or None if there is none.
    """

    damaged = 0
    """The number of frames so far that could not be decoded, in whose place others are shown."""

    def __init__(self, count: int, duration: Fraction, audio: Sound | None = None, *, pixels: int) -> None:
        self.count = count
        self.duration = duration
        self.audio = audio
        self.pixels = pixels

    @property
    def fps(self) -> Fraction:
        """The number of frames per second; the average if the frame rate varies."""
        return self.count / self.duration

    @abstractmethod
    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        """Decode and yield each frame (uint8 RGB ``[height, width, 3]``) and its time in seconds.

        Raises ``MediaError`` if the file turns out to be damaged.
        """

    def at_fps(self, fps: Fraction) -> "Source":
        """Return the same video at a constant frame rate: resampled, with its duration kept."""
        return _Resampled(self, fps)

    def chunks(self) -> Iterator[TimedFrames]:
        """Yield the frames in chunks of ``CHUNK``; the last chunk may be shorter."""
        images: list[Image] = []
        times: list[Fraction] = []
        index = 0
        for image, time in self.frames():
            images.append(image)
            times.append(time)
            if len(images) == CHUNK:
                yield TimedFrames(index, np.stack(images), tuple(times))
                index += CHUNK
                images, times = [], []
        if images:
            yield TimedFrames(index, np.stack(images), tuple(times))


class _Resampled(Source):
    """A source that repeats and drops frames of another one to reach a constant frame rate."""

    def __init__(self, source: Source, fps: Fraction) -> None:
        count = max(1, round(source.duration * fps))
        super().__init__(count, count / fps, source.audio, pixels=source.pixels)
        self._source = source

    def frames(self) -> Iterator[tuple[Image, Fraction]]:
        fps = self.fps
        start: Fraction | None = None
        shown: Image | None = None
        emitted = 0
        for image, time in self._source.frames():
            start = time if start is None else start
            self.damaged = self._source.damaged
            while shown is not None and emitted < self.count and start + emitted / fps < time:
                yield shown, start + emitted / fps
                emitted += 1
            shown = image
        while shown is not None and start is not None and emitted < self.count:
            yield shown, start + emitted / fps
            emitted += 1
