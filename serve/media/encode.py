"""The interface of the video encoders."""

from abc import ABC, abstractmethod
from fractions import Fraction

from deployments.wire import Frames
from serve.media.spool import Media


class Encoder(ABC):
    """Takes frames in order and returns the file at the end; use it from one thread at a time.

    ``add`` and ``close`` raise ``MediaError`` for what cannot be encoded: a size that the format
    does not support, damaged audio, or a video without frames.
    """

    frames = 0
    """The number of frames in the file, complete once the encoder is closed."""

    @abstractmethod
    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """Encode uint8 RGB frames ``[n, height, width, 3]``, shown at ``times`` (seconds)."""

    @abstractmethod
    def close(self) -> Media:
        """Finish the video and return the file."""

    @abstractmethod
    def discard(self) -> None:
        """Free the threads and buffers of an unfinished video; do nothing after ``close``."""
