"""Encoding of MP4 files with PyAV: H.264 in BT.709, without sound; see ``soundtrack``."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags as CodecFlags
from av.codec.context import ThreadType
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from deployments.wire import Frames, Image
from serve.media.encode.encoder import Clock, Encoder, FrameMark
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.spool import Spool

MAX_SIDE = 16_384
"""The largest width and height in pixels, from the highest level of H.264."""
TICKS = 360_000
"""Ticks per second; at the usual frame rates, NTSC's included, a frame lasts whole ticks."""
_ROUNDED = 2
"""By how many ticks the durations of equally long frames may differ."""
_BT709 = 1
_CPU_INFO = Path("/proc/cpuinfo")
_REPEATABLE = ("asm=avx2",) if _CPU_INFO.is_file() and "avx512" in _CPU_INFO.read_text() else ()
"""Parameters that make x264 return the same bytes for the same frames.

The AVX-512 code of its macroblock tree reads uninitialised memory, so that the same frames give
different bytes in each run, half a level apart. The AVX2 code does not, and is as fast.
"""

_THREADS = 8
"""Frames of up to ``_SMALL`` pixels that x264 encodes at the same time, in a thread each.

PyAV's default is a slice of the frame for each core. That keeps few cores busy where frames are
small, and makes files that differ with the number of cores. Large frames stay with it: each thread
holds frames of its own.
"""
_SMALL = 2**20

_TINY = 2**17
"""Marked frames of up to this many pixels are encoded with ``_FINE``."""
_FINE = ("trellis=0", "deadzone-inter=2", "deadzone-intra=2")
"""Parameters with which x264 keeps weak detail, in files half as large again.

By default it rounds most of a watermark away, of which tiny frames have little.
"""


class TrackWriter:
    """Writes the packets of a film to ``container``, in the order of decoding, in ticks.

    The index of an MP4 lists durations in the order of decoding, where each packet lasts until the
    next one, whatever its frame does. Only that of the last packet is free. As far as its frame is
    from the end of the film, readers find that end even where the last frames last unequally long.
    Where all frames last equally long, it is the duration of a frame: the average rate, which many
    programs take for the rate, is then exact.
    """

    def __init__(self, container: OutputContainer) -> None:
        self._container = container
        self._last: Packet[VideoStream] | None = None
        self._times: list[int] = []

    def write(self, packet: "Packet[VideoStream]") -> None:
        """Write ``packet`` once it is clear whether another one follows."""
        if self._last is not None:
            self._container.mux(self._last)
        self._last = packet
        if packet.pts is not None:
            self._times.append(packet.pts)

    def close(self, end: int) -> None:
        """Write the last packet of a film that ends at the tick ``end``."""
        if self._last is None:
            return
        times = sorted([*self._times, end])
        gaps = [after - before for before, after in pairwise(times)]
        if gaps and max(gaps) - min(gaps) <= _ROUNDED:
            self._last.duration = gaps[-1]
        self._container.mux(self._last)
        self._last = None


class Mp4Encoder(Encoder):
    """Encodes H.264 (yuv420p, BT.709) into an MP4 file on disk whose index comes first (faststart).

    ``preset`` and ``crf`` are the options of x264. ``seconds`` is the video's duration; without it,
    the last frame is shown for 1 / ``fps`` seconds. ``mark`` is put into the luma. A ``draft`` is a
    file for ``add_soundtrack``: its index comes last, and its times are exact.
    """

    def __init__(
        self,
        fps: Fraction,
        preset: str,
        crf: int,
        *,
        seconds: Fraction | None = None,
        mark: FrameMark | None = None,
        draft: bool = False,
    ) -> None:
        self._fps = fps
        self._seconds = seconds
        self._mark = mark
        self._end: Fraction | None = None
        self._clock = Clock(TICKS)
        self._options = {"preset": preset, "crf": str(crf)}
        spool = Spool.empty()
        self._spool: Spool | None = spool
        self._container: OutputContainer | None = av.open(
            spool.file,
            "w",
            format="mp4",
            # A file states when its tracks begin in milliseconds, unless it is told to use ticks.
            options={"movie_timescale": str(TICKS)} if draft else {"movflags": "faststart"},
            # To move the index to the front, the muxer reads what it has written. The lambda must
            # not refer to `self`: that cycle would keep x264's threads alive.
            io_open=lambda *_: spool.open(),
        )
        self._reformatter = VideoReformatter()
        self._video: VideoStream | None = None
        self._writer = TrackWriter(self._container)
        self.end = Fraction(0)
        """When the last frame ends, in seconds."""

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        video = self._video or self._begin(frames.shape[2], frames.shape[1])
        if self._end is None and self._seconds is not None:
            self._end = times[0] + self._seconds
        for pixels, time in zip(frames, times, strict=True):
            frame = VideoFrame.from_ndarray(_pad_to_even(pixels), format="rgb24")
            frame = self._reformatter.reformat(
                frame,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            if self._mark is not None:
                self._mark.mark_luma(_luma_of(frame))
            frame.colorspace = _BT709
            frame.color_range = ColorRange.MPEG
            frame.pts = self._clock.tick(time)
            frame.time_base = Fraction(1, TICKS)
            # The muxer takes the end of the video from the frame that ends last.
            self.end = self._end or time + 1 / self._fps
            frame.duration = max(1, round(self.end * TICKS) - frame.pts)
            self._encode(video, frame)
            self.frames += 1

    def close(self) -> Spool:
        if self._video is None or self._spool is None:
            raise MediaError("the video has no frames")
        container = self._open_container()
        self._encode(self._video, None)
        self._writer.close(round(self.end * TICKS))
        container.close()
        spool, self._spool = self._spool, None
        self.discard()
        return spool

    def discard(self) -> None:
        if self._spool is not None:
            self._spool.close()
            self._spool = None
        if self._container is not None:
            # The container and its streams refer to each other until it is closed, which would keep
            # x264's threads. It writes no index for an unfinished video, since the file is closed.
            self._container.close()
        self._video, self._container = None, None

    def _encode(self, video: VideoStream, frame: VideoFrame | None) -> None:
        for packet in video.encode(frame):
            self._writer.write(packet)

    def _open_container(self) -> OutputContainer:
        if self._container is None:
            raise MediaError("the video is already finished")
        return self._container

    def _begin(self, width: int, height: int) -> VideoStream:
        """Add the streams to the container, now that the size of the frames is known."""
        if max(width, height) > MAX_SIDE:
            raise MediaTooLarge(
                f"the result has {width} x {height} pixels; MP4 allows at most {MAX_SIDE} pixels per side: scale the video down"
            )
        container = self._open_container()
        fine = _FINE if self._mark is not None and width * height <= _TINY else ()
        parameters = (*_REPEATABLE, *fine)
        options = self._options | ({"x264-params": ":".join(parameters)} if parameters else {})
        self._video = container.add_stream("libx264", rate=_nominal(self._fps), options=options)
        self._video.width, self._video.height = width + width % 2, height + height % 2
        self._video.pix_fmt = "yuv420p"
        context = self._video.codec_context
        if width * height <= _SMALL:
            context.thread_type, context.thread_count = ThreadType.FRAME, _THREADS
        context.time_base = Fraction(1, TICKS)
        context.flags |= CodecFlags.frame_duration
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        return self._video


def _luma_of(frame: VideoFrame) -> npt.NDArray[np.uint8]:
    """Return a view ``[height, width]`` of a frame's luma."""
    plane = frame.planes[0]
    luma = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return luma[: frame.height, : frame.width]


def _nominal(fps: Fraction) -> Fraction:
    """Return the rate for the encoder, which is nominal because each frame has its own time."""
    return min(max(fps, Fraction(1, 1000)), Fraction(1000)).limit_denominator(1001)


def _pad_to_even(pixels: Image) -> Image:
    """Repeat the last row or column where a side is odd, because yuv420p needs even sides."""
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(pixels)
