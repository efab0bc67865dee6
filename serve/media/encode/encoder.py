"""The interface of the video encoders."""

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from deployments.wire import Frames
from serve.media.errors import MediaError
from serve.media.spool import Media


class FrameMark(Protocol):
    """Changes the frames of one video a little, in order, before they are encoded."""

    def mark(self, frames: Frames, /) -> Frames:
        """Return uint8 RGB frames ``[n, height, width, 3]`` with the mark."""

    def mark_luma(self, plane: npt.NDArray[np.uint8], /) -> None:
        """Put the mark into luma of limited range ``[height, width]``, in place."""


class LateMark:
    """A mark that leaves frames as they are until ``begin`` is called, and marks all after that."""

    def __init__(self, mark: FrameMark) -> None:
        self._mark = mark
        self._begun = False

    def begin(self) -> None:
        """Mark the frames from here on."""
        self._begun = True

    def mark(self, frames: Frames, /) -> Frames:
        """Return frames, which have the mark if it has begun; see ``FrameMark``."""
        return self._mark.mark(frames) if self._begun else frames

    def mark_luma(self, plane: npt.NDArray[np.uint8], /) -> None:
        """Put the mark into luma in place, if it has begun; see ``FrameMark``."""
        if self._begun:
            self._mark.mark_luma(plane)


class Encoder(ABC):
    """Takes frames in order and returns the file at the end; use it from one thread at a time.

    ``add`` and ``close`` raise ``MediaError`` for what cannot be encoded: a size that the format
    does not support, or a video without frames.
    """

    frames = 0
    """The number of frames in the file, complete once the encoder is closed."""

    @abstractmethod
    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """Encode uint8 RGB frames ``[n, height, width, 3]``, shown at ``times`` (seconds)."""

    @abstractmethod
    def close(self) -> Media:
        """Finish the video and return the file."""

    stopped = False
    """Whether the caller has left, so that nobody needs the file."""

    def stop(self) -> None:
        """Let a call of ``close`` in another thread end with a ``MediaError`` at its next frame."""
        self.stopped = True

    @abstractmethod
    def discard(self) -> None:
        """Free the threads and buffers of an unfinished video; do nothing after ``close``."""


class MarkedEncoder(Encoder):
    """Marks RGB frames before another encoder takes them."""

    def __init__(self, encoder: Encoder, mark: FrameMark) -> None:
        self._encoder = encoder
        self._mark = mark

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        self._encoder.add(self._mark.mark(frames), times)

    def close(self) -> Media:
        media = self._encoder.close()
        self.frames = self._encoder.frames
        return media

    def stop(self) -> None:
        self._encoder.stop()

    def discard(self) -> None:
        self._encoder.discard()


def stopped_early() -> MediaError:
    """Return the error that ends the encoding of a file that nobody needs."""
    return MediaError("the caller has left")


class Clock:
    """Turns the times of frames into whole ticks that strictly increase.

    Recorders write frames whose times repeat or step back, and short ticks make close times equal.
    Such a frame is shown one tick after the one before it, as FFmpeg does.
    """

    def __init__(self, ticks_per_second: int) -> None:
        self._ticks_per_second = ticks_per_second
        self._last: int | None = None

    def tick(self, time: Fraction) -> int:
        """Return the tick at which the next frame, with its ``time`` in seconds, is shown."""
        tick = round(time * self._ticks_per_second)
        self._last = tick if self._last is None else max(tick, self._last + 1)
        return self._last
