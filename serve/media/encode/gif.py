"""Encoding of animated GIF: Pillow chooses the colours, and PyAV writes the file."""

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.frame import VideoFrame

from deployments.wire import Frames, Image
from serve.media.encode.encoder import Encoder, stopped_early
from serve.media.encode.palette import choose_palette, colours_of, in_palette
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.spool import Spool

MAX_GIF_BYTES = 2**30
"""The limit for the uncompressed frames of one animation, in bytes: 172 frames of 1080p."""
MAX_GIF_SIDE = 65_535
TICKS = 100
"""Ticks per second, the unit of a GIF's delays."""
MIN_DELAY = 2
"""The shortest time for which a frame is shown, in ticks.

GIF could store 1 and 0, but browsers show such frames for a tenth of a second.
"""
MAX_DELAY = 65_535
"""The longest time for which a frame can be shown, in ticks."""
_SAMPLED_FRAMES = 64
_SAMPLED_PIXELS = 2**15


class GifEncoder(Encoder):
    """Encodes an animated GIF that repeats forever, with one palette for the whole video.

    The palette depends on all frames, so they are kept in a file on disk until ``close``, which
    holds two of them in memory. A frame that would be shown for less than ``MIN_DELAY`` is left
    out. ``count`` is the expected number of frames, or 0 if it is unknown; if it is known, ``add``
    refuses a video that will be too long at its first frames. ``seconds`` is the video's duration;
    without it, the last frame is shown for 1 / ``fps`` seconds.
    """

    def __init__(self, fps: Fraction, *, count: int = 0, seconds: Fraction | None = None) -> None:
        self._fps = fps
        self._seconds = seconds
        self._count = round(count * min(1.0, float(TICKS / (MIN_DELAY * fps))))
        self._start = Fraction(0)
        self._last = Fraction(0)
        self._size: tuple[int, ...] = ()
        self._ticks: list[int] = []
        self._raw: Spool | None = Spool.empty()

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        height, width = frames.shape[1:3]
        if max(width, height) > MAX_GIF_SIDE:
            raise MediaTooLarge(
                f"the result has {width} x {height} pixels; GIF allows at most {MAX_GIF_SIDE} pixels per side: "
                "request another media type with the Accept header"
            )
        if not self._ticks:
            self._start, self._size = times[0], (height, width, 3)
        for pixels, time in zip(frames, times, strict=True):
            self._last = time
            # Rounding the times instead of the durations keeps the rounding errors from adding up.
            tick = round((time - self._start) * TICKS)
            if not self._ticks or tick - self._ticks[-1] >= MIN_DELAY:
                self._keep(pixels, tick)

    def close(self) -> Spool:
        if not self._ticks or self._raw is None:
            raise MediaError("the video has no frames")
        seconds = self._last + 1 / self._fps - self._start if self._seconds is None else self._seconds
        end = round(seconds * TICKS)
        if self._ticks[1:] and end - self._ticks[-1] < MIN_DELAY:
            self._ticks.pop()  # the frame before it is shown until the end
        delays = [after - tick for tick, after in zip(self._ticks, [*self._ticks[1:], max(end, self._ticks[-1])], strict=True)]
        if max(delays) > MAX_DELAY:
            raise MediaTooLarge(
                f"the result shows one frame for {max(delays) // TICKS} seconds; GIF allows at most "
                f"{MAX_DELAY // TICKS}: request another media type with the Accept header"
            )
        file = Spool.empty()
        try:
            self._write(file, last_delay=max(delays[-1], MIN_DELAY))
        except BaseException:
            file.close()
            raise
        self.frames = len(self._ticks)
        self.discard()
        return file

    def discard(self) -> None:
        if self._raw is not None:
            self._raw.close()
            self._raw = None

    def _keep(self, pixels: Image, tick: int) -> None:
        if self._raw is None:
            raise MediaError("the video is already finished")
        if max(len(self._ticks) + 1, self._count) * int(pixels.nbytes) > MAX_GIF_BYTES:
            raise MediaTooLarge("the result is too long for an animated GIF: request video/mp4 with the Accept header")
        self._raw.append(pixels)
        self._ticks.append(tick)

    def _write(self, file: Spool, *, last_delay: int) -> None:
        palette = choose_palette(self._samples())
        colours = colours_of(palette)
        options = {"loop": "0", "final_delay": str(last_delay)}
        with av.open(file.file, "w", format="gif", options=options) as container:
            stream = container.add_stream("gif", rate=TICKS)
            stream.height, stream.width = self._size[:2]
            stream.pix_fmt = "pal8"
            for indices, tick in zip(in_palette(self._frames(), palette), self._ticks, strict=True):
                # PyAV's annotations know no format of two arrays.
                pair = cast(Image, (indices, colours))
                frame = VideoFrame.from_ndarray(pair, format="pal8")
                frame.pts, frame.time_base = tick, Fraction(1, TICKS)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())

    def _frames(self, numbers: list[int] | None = None) -> Iterator[Image]:
        """Yield the kept frames, or those with the given numbers, from the disk."""
        assert self._raw is not None
        size = int(np.prod(self._size))
        with self._raw.open() as raw:
            for number in range(len(self._ticks)) if numbers is None else numbers:
                if self.stopped:
                    raise stopped_early()
                raw.seek(number * size)
                yield np.frombuffer(raw.read(size), np.uint8).reshape(self._size)

    def _samples(self) -> Image:
        """Return pixels of frames from the whole video, as an image of one row."""
        numbers = sorted({round(i) for i in np.linspace(0, len(self._ticks) - 1, _SAMPLED_FRAMES)})
        share = _SAMPLED_PIXELS // len(numbers)
        random = np.random.default_rng(0)  # the same video gets the same palette
        samples = []
        for frame in self._frames(numbers):
            pixels = frame.reshape(-1, 3)
            samples.append(pixels if len(pixels) <= share else pixels[random.integers(len(pixels), size=share)])
        return np.concatenate(samples)[None]
