"""Encoding of animated WebP with Pillow."""

import io
from fractions import Fraction

import PIL.Image

from deployments.wire import Frames, Image
from serve.media.encode.encoder import Encoder, stopped_early
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import check_webp
from serve.media.spool import Spool

MAX_WEBP_BYTES = 2**30
"""The limit for the uncompressed frames of one animation, in bytes: 172 frames of 1080p."""
TICKS = 1000
"""Ticks per second, the unit of a WebP's durations."""
MIN_DELAY = 11
"""The shortest time for which a frame is shown, in ticks.

WebP could store less, but browsers show such frames for a tenth of a second.
"""


class WebpEncoder(Encoder):
    """Encodes an animated WebP with quality 90 that repeats forever.

    Pillow encodes all frames in ``close``; until then they are on disk. A frame that would be shown
    for less than ``MIN_DELAY`` is left out. ``method`` is libwebp's effort, from 0 (fast) to 6
    (small). ``count`` is the expected number of frames, or 0 if it is
    unknown; if it is known, ``add`` refuses a video that will be too long at its first frames.
    ``seconds`` is the video's duration; without it, the last frame is shown for 1 / ``fps``
    seconds.
    """

    def __init__(self, fps: Fraction, method: int, *, count: int = 0, seconds: Fraction | None = None) -> None:
        self._fps = fps
        self._seconds = seconds
        self._method = method
        self._count = round(count * min(1.0, float(TICKS / (MIN_DELAY * fps))))
        self._ticks: list[int] = []
        self._start = Fraction(0)
        self._last = Fraction(0)
        self._stored: _StoredFrames | None = None

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        if self._stored is None:
            check_webp(frames.shape[2], frames.shape[1])
            self._stored = _StoredFrames(frames.shape[2], frames.shape[1])
            self._start = times[0]
        for pixels, time in zip(frames, times, strict=True):
            # Rounding the times instead of the durations keeps the rounding errors from adding up.
            tick = round((time - self._start) * TICKS)
            if self._ticks and time <= self._last:  # a time that repeats or steps back
                tick = self._ticks[-1] + MIN_DELAY
            self._last = max(time, self._last) if self._ticks else time
            if not self._ticks or tick - self._ticks[-1] >= MIN_DELAY:
                self._keep(self._stored, pixels, tick)

    def close(self) -> bytes:
        if self._stored is None:
            raise MediaError("the video has no frames")
        seconds = self._last + 1 / self._fps - self._start if self._seconds is None else self._seconds
        end = round(seconds * TICKS)
        if self._ticks[1:] and end - self._ticks[-1] < MIN_DELAY:
            self._ticks.pop()  # the frame before it is shown until the end
            self._stored.n_frames -= 1
        ends = [*self._ticks[1:], max(self._ticks[-1] + MIN_DELAY, end)]
        buffer = io.BytesIO()
        self._stored.seek(0)
        self._stored.save(
            buffer,
            "WEBP",
            save_all=True,
            duration=[end - start for start, end in zip(self._ticks, ends, strict=True)],
            loop=0,
            quality=90,
            method=self._method,
        )
        self.discard()
        # libwebp merges equal consecutive frames, so the file may hold fewer than were added.
        self.frames = getattr(PIL.Image.open(buffer), "n_frames", 1)
        return buffer.getvalue()

    def _keep(self, stored: "_StoredFrames", pixels: Image, tick: int) -> None:
        if max(len(self._ticks) + 1, self._count) * int(pixels.nbytes) > MAX_WEBP_BYTES:
            raise MediaTooLarge(
                "the result is too long for an animated WebP, which is limited to 1 GiB of raw frames: request video/mp4"
            )
        stored.append(pixels)
        self._ticks.append(tick)

    def stop(self) -> None:
        super().stop()
        if (stored := self._stored) is not None:
            stored.stopped = True

    def discard(self) -> None:
        if self._stored is not None:
            self._stored.close()
        self._stored = None


class _StoredFrames(PIL.Image.Image):
    """An animation for Pillow to save, of which only the current frame is in memory.

    A list of images would keep 4 bytes a pixel of all frames in memory until the end.
    """

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self._mode = "RGB"
        self._size = (width, height)
        self._spool = Spool.empty()
        self.n_frames = 0
        self.stopped = False

    def append(self, pixels: Image) -> None:
        """Store a frame, uint8 RGB ``[height, width, 3]``."""
        self._spool.append(pixels)
        self.n_frames += 1

    def seek(self, frame: int) -> None:
        """Load frame number ``frame``, counted from 0; raise ``MediaError`` if it is stopped."""
        if self.stopped:
            raise stopped_early()
        length = 3 * self.width * self.height
        with self._spool.open() as file:
            file.seek(frame * length)
            self.im = PIL.Image.frombytes("RGB", self.size, file.read(length)).im

    def tell(self) -> int:
        """Return the frame to which Pillow goes back after it has saved all of them."""
        return 0

    def close(self) -> None:
        """Free the stored frames."""
        super().close()
        self._spool.close()
