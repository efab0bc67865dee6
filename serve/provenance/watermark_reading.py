"""Reads the watermark of a file, within a budget of frames.

This decodes files of unknown origin, so it runs in a worker process with budgets of time and
memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits
from serve.media.spool import Media
from serve.provenance.watermark import Detector, Reading
from serve.provenance.watermark.residual import Plane

_DENSE = 8
"""Frames at the start that are all looked at: a film begins with a frame that is coded well."""
_STEP = 4
"""Of the frames behind them, one in so many is looked at."""


@dataclass(frozen=True)
class WatermarkLimits:
    """How much of a file is looked at: pixels in a frame, and frames.

    ``frames`` is the limit for those that are looked at; about ``_STEP`` times as many are decoded.
    """

    pixels: int = 40_000_000
    frames: int = 16
    seconds: float = 24 * 3600.0
    total_frames: int = 10_000_000
    scans: int = 100


def read_watermark(media: Media, secrets: Sequence[bytes], limits: WatermarkLimits = WatermarkLimits()) -> Reading | None:
    """Return the watermark of a picture or video, or None if none of ``secrets`` has made one.

    Raises ``MediaError`` for a file that cannot be decoded or that exceeds the limits.
    """
    source = open_source(
        media,
        SourceLimits(frames=limits.total_frames, seconds=limits.seconds, pixels=limits.pixels, scans=limits.scans),
    )
    frames = (image for image, _ in source.frames())
    return Detector(secrets).detect(_sampled(frames, limits.frames))


def _sampled(frames: Iterator["np.ndarray[tuple[int, ...], np.dtype[np.uint8]]"], most: int) -> Iterator[Plane]:
    """Yield the luma of some frames, all of one size."""
    looked, shape = 0, None
    for number, frame in enumerate(frames):
        if number >= _DENSE and (number - _DENSE) % _STEP:
            continue
        if shape is not None and frame.shape != shape:
            continue
        shape = frame.shape
        yield cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)
        looked += 1
        if looked == most:
            return
