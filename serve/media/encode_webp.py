"""Encoding of animated WebP with Pillow."""

import io
from fractions import Fraction

import PIL.Image

from deployments.wire import Frames
from serve.media.encode import Encoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import check_webp

MAX_WEBP_BYTES = 2**30
"""The limit for the uncompressed frames of one animation, in bytes: 172 frames of 1080p."""


class WebpEncoder(Encoder):
    """Encodes an animated WebP with quality 90 that repeats forever.

    Pillow encodes all frames in ``close``; until then they are kept in memory. ``method`` is
    libwebp's effort, from 0 (fast) to 6 (small). ``count`` is the expected number of frames, or 0
    if it is unknown; if it is known, ``add`` refuses a video that will be too long at its first
    frames. ``seconds`` is the video's duration; without it, the last frame is shown for 1 / ``fps``
    seconds.
    """

    def __init__(self, fps: Fraction, method: int, *, count: int = 0, seconds: Fraction | None = None) -> None:
        self._fps = fps
        self._seconds = seconds
        self._method = method
        self._count = count
        self._held_bytes = 0
        self._images: list[PIL.Image.Image] = []
        self._times: list[Fraction] = []

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        check_webp(frames.shape[2], frames.shape[1])
        self._held_bytes += frames.nbytes
        if max(self._held_bytes, self._count * frames[0].nbytes) > MAX_WEBP_BYTES:
            raise MediaTooLarge("the result is too long for an animated WebP, which is encoded in memory: request video/mp4")
        self._images += [PIL.Image.fromarray(pixels) for pixels in frames]
        self._times += times

    def close(self) -> bytes:
        if not self._images:
            raise MediaError("the video has no frames")
        end = self._times[-1] + 1 / self._fps if self._seconds is None else self._times[0] + self._seconds
        ends = [*self._times[1:], max(self._times[-1], end)]
        # WebP stores whole milliseconds. Rounding the times instead of the durations keeps the
        # rounding errors from adding up.
        durations = [round(end * 1000) - round(time * 1000) for time, end in zip(self._times, ends, strict=True)]
        buffer = io.BytesIO()
        self._images[0].save(
            buffer,
            "WEBP",
            save_all=True,
            append_images=self._images[1:],
            duration=durations,
            loop=0,
            quality=90,
            method=self._method,
        )
        self.discard()
        # libwebp merges equal consecutive frames, so the file may hold fewer than were added.
        self.frames = getattr(PIL.Image.open(buffer), "n_frames", 1)
        return buffer.getvalue()

    def discard(self) -> None:
        self._images, self._times = [], []
