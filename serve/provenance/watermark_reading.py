"""Reads the watermark of a file, within a budget of frames.

This decodes files of unknown origin, so it runs in a worker process with budgets of time and
memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import cv2
import numpy as np

from deployments.wire import Image
from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits
from serve.media.spool import Media
from serve.provenance.watermark import Detector, Reading
from serve.provenance.watermark.residual import Plane

_DENSE = 8
"""Frames at the start that are all looked at: a film begins with a frame that is coded well."""
_DECODED_PIXELS = 1_200_000_000
"""The number of pixels over which the other frames that are looked at are spread evenly. Frames can
only be decoded one after the other, which takes about five seconds for so many."""


@dataclass(frozen=True)
class WatermarkLimits:
    """How much of a file is looked at: pixels in a frame, and frames.

    ``frames`` is the limit for those that are looked at. They are spread over the whole film, or
    over as much of it as ``_DECODED_PIXELS`` allows.
    """

    pixels: int = 40_000_000
    frames: int = 16
    seconds: float = 24 * 3600.0
    total_frames: int = 10_000_000
    scans: int = 100


def read_watermark(media: Media, secrets: Sequence[bytes], limits: WatermarkLimits = WatermarkLimits()) -> Reading | None:
    """Return the clearest watermark of a picture or video, or None; see ``read_watermarks``."""
    return next(iter(read_watermarks(media, secrets, limits)), None)


def read_watermarks(media: Media, secrets: Sequence[bytes], limits: WatermarkLimits = WatermarkLimits()) -> tuple[Reading, ...]:
    """Return the watermarks of a picture or video that any of ``secrets`` has made, clearest first.

    Raises ``MediaError`` for a file that cannot be decoded or that exceeds the limits.
    """
    source = open_source(
        media,
        SourceLimits(frames=limits.total_frames, seconds=limits.seconds, pixels=limits.pixels, scans=limits.scans),
    )
    frames = (image for image, _ in source.frames())
    reach = min(source.count, _DECODED_PIXELS // max(1, source.pixels))
    return Detector(secrets).detect_all(_sampled(frames, limits.frames, reach))


def _sampled(frames: Iterator[Image], most: int, reach: int) -> Iterator[Plane]:
    """Yield the luma of at most ``most`` of the first ``reach`` frames, all of one size."""
    step = max(1, (reach - _DENSE) // max(1, most - _DENSE))
    looked, shape = 0, None
    for number, frame in enumerate(islice(frames, max(1, reach))):
        if number >= _DENSE and (number - _DENSE) % step != step - 1:
            continue
        if shape is not None and frame.shape != shape:
            continue
        shape = frame.shape
        yield cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY).astype(np.float32)
        looked += 1
        if looked == most:
            return
