"""Videos out: MP4 by PyAV (H.264, BT.709, faststart, audio copied), animated WebP by Pillow."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av
import av.error
import numpy as np
import PIL.Image
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.codec.context import Flags as CodecFlags
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from deployments.wire import Frames
from serve.media.container import open_container
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import check_webp
from serve.media.spool import Media, Spool

AudioPacket: TypeAlias = "Packet[AudioStream]"

MAX_SIDE = 16_384
"""Pixels: what H.264's highest level holds."""
MAX_WEBP_BYTES = 2**30
"""Pixels that an animated WebP may have, all frames together, in bytes: 172 frames of 1080p."""
AAC_RATE = 48_000
TICKS = 360_000
"""A second: whole for a frame of every usual rate, 24000/1001 and 60000/1001 included."""
_MP4_AUDIO = {"aac", "mp3", "ac3", "eac3", "opus", "alac"}
_BT709 = 1
_CPU = Path("/proc/cpuinfo")
_REPEATABLE = {"x264-params": "asm=avx2"} if _CPU.is_file() and "avx512" in _CPU.read_text() else {}
"""x264's code for AVX-512 takes memory into account that nobody wrote (in its macroblock tree): the same frames make other bytes each
time, half a level apart. That for AVX2 does not, and is no slower."""
_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}


class Encoder(ABC):
    """Takes frames in order, gives the file at the end. Used from one thread at a time.

    Both methods raise MediaError for what cannot be encoded: a size that the format has not, sound that is damaged.
    """

    frames = 0
    """Frames that the file has, once it is closed."""

    @abstractmethod
    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """Encodes uint8 RGB frames ``[n, height, width, 3]`` shown at ``times`` (seconds)."""

    @abstractmethod
    def close(self) -> Media:
        """Ends the video and returns the file."""

    @abstractmethod
    def discard(self) -> None:
        """Frees threads and buffers of a video that is not wanted any more; does nothing after ``close``."""


class Mp4Encoder(Encoder):
    """H.264 yuv420p, BT.709, faststart, written to disk. ``audio``: a file whose first audio stream is copied, with its timing.

    ``seconds``: how long the video is; absent, its last frame is shown as long as one at ``fps``.
    """

    def __init__(
        self, fps: Fraction, preset: str, crf: int, audio: Media | None = None, seconds: Fraction | None = None
    ) -> None:
        self._fps = fps
        self._seconds = seconds
        self._end: Fraction | None = None
        self._options = {"preset": preset, "crf": str(crf), **_REPEATABLE}
        self._audio_file = audio
        spool = Spool.empty()
        self._spool: Spool | None = spool
        self._container: OutputContainer | None = av.open(
            spool.file,
            "w",
            format="mp4",
            options={"movflags": "faststart"},
            # Faststart moves the data by reading behind its own writing. Of the file alone: `self` would keep the threads alive.
            io_open=lambda *_: spool.open(),
        )
        self._reformatter = VideoReformatter()
        self._video: VideoStream | None = None
        self._audio: Iterator[AudioPacket] = iter(())
        self._pending: AudioPacket | None = None
        self._audio_source: av.container.InputContainer | None = None

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """See Encoder."""
        video = self._video or self._begin(frames.shape[2], frames.shape[1])
        container = self._open()
        if self._end is None and self._seconds is not None:
            self._end = times[0] + self._seconds
        end = self._end
        for pixels, time in zip(frames, times, strict=True):
            frame = VideoFrame.from_ndarray(_even(pixels), format="rgb24")
            frame = self._reformatter.reformat(
                frame,
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            frame.colorspace = _BT709
            frame.color_range = ColorRange.MPEG
            frame.pts = round(time * TICKS)
            frame.time_base = Fraction(1, TICKS)
            # From the last one the muxer takes when the video ends; the others' it has from the next frame.
            frame.duration = max(1, round(((end or time + 1 / self._fps) - time) * TICKS))
            self._mux_audio_until(time)
            container.mux(video.encode(frame))
            self.frames += 1

    def close(self) -> Spool:
        """See Encoder."""
        if self._video is None or self._spool is None:
            raise MediaError("a video without frames")
        container = self._open()
        container.mux(self._video.encode())
        self._mux_audio_until(None)
        container.close()
        spool, self._spool = self._spool, None
        self.discard()
        return spool

    def discard(self) -> None:
        """See Encoder."""
        if self._audio_source is not None:
            self._audio_source.close()
        self._video, self._container, self._audio_source = None, None, None
        self._audio, self._pending = iter(()), None
        if self._spool is not None:
            self._spool.close()
            self._spool = None

    def _open(self) -> OutputContainer:
        if self._container is None:
            raise MediaError("the video has been ended already")
        return self._container

    def _begin(self, width: int, height: int) -> VideoStream:
        if max(width, height) > MAX_SIDE:
            raise MediaTooLarge(f"{width} x {height} pixels; MP4 holds at most {MAX_SIDE} a side: scale the video down")
        self._video = self._open().add_stream("libx264", rate=self._fps.limit_denominator(1001), options=self._options)
        self._video.width, self._video.height = width + width % 2, height + height % 2
        self._video.pix_fmt = "yuv420p"
        context = self._video.codec_context
        context.time_base = Fraction(1, TICKS)
        context.flags |= CodecFlags.frame_duration
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        if self._audio_file is not None:
            with _sound_errors():
                self._audio = self._read_audio(self._audio_file)
                self._pending = next(self._audio, None)
        return self._video

    def _read_audio(self, file: Media) -> Iterator[AudioPacket]:
        self._audio_source = source = open_container(file)
        stream = source.streams.audio[0]
        if stream.codec_context is None:
            raise MediaError("sound of a kind that cannot be read; send the video without it, or with AAC")
        if stream.codec_context.name in _MP4_AUDIO:
            return _copy(source, stream, self._open().add_stream_from_template(stream))
        # Where a file tells only how many channels there are, they are the usual ones.
        layout = (
            _LAYOUTS.get(stream.layout.nb_channels, "stereo") if stream.layout.name.endswith("channels") else stream.layout.name
        )
        return _transcode(source, stream, self._open().add_stream("aac", rate=min(stream.rate, AAC_RATE), layout=layout))

    def _mux_audio_until(self, time: Fraction | None) -> None:
        with _sound_errors():
            while (packet := self._pending) is not None:
                if time is not None and packet.pts is not None and packet.pts * packet.time_base > time:
                    return
                self._open().mux(packet)
                self._pending = next(self._audio, None)


@contextmanager
def _sound_errors() -> Iterator[None]:
    try:
        yield
    except av.error.FFmpegError as e:
        raise MediaError(f"its sound is damaged or of an unusual kind ({e.strerror})") from None


def _copy(source: av.container.InputContainer, stream: AudioStream, target: AudioStream) -> Iterator[AudioPacket]:
    for packet in source.demux(stream):
        if packet.dts is not None:  # the one without is the demuxer's end mark
            packet.stream = target
            yield packet


def _transcode(source: av.container.InputContainer, stream: AudioStream, encoder: AudioStream) -> Iterator[AudioPacket]:
    resampler = AudioResampler(format="fltp", layout=encoder.layout, rate=encoder.rate)
    for frame in source.decode(stream):
        for piece in resampler.resample(frame):
            yield from encoder.encode(piece)
    yield from encoder.encode(None)


def _even(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """yuv420p has no odd sizes: the last row or column is repeated."""
    height, width = pixels.shape[:2]
    if height % 2 or width % 2:
        return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(pixels)


class WebpEncoder(Encoder):
    """Animated WebP, quality 90, endless loop. Pillow encodes the whole at the end.

    ``count``: frames that are to come, as far as that is known: a video that will be too long is then refused by its first ones.
    ``seconds``: as for Mp4Encoder.
    """

    def __init__(self, fps: Fraction, method: int, count: int = 0, seconds: Fraction | None = None) -> None:
        self._fps = fps
        self._seconds = seconds
        self._method = method
        self._count = count
        self._held = 0
        self._pictures: list[PIL.Image.Image] = []
        self._times: list[Fraction] = []

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """See Encoder."""
        check_webp(frames.shape[2], frames.shape[1])
        self._held += frames.nbytes
        if max(self._held, self._count * frames[0].nbytes) > MAX_WEBP_BYTES:
            raise MediaTooLarge("an animated WebP is made in memory, and this one is too long for it: ask for video/mp4")
        self._pictures += [PIL.Image.fromarray(pixels) for pixels in frames]
        self._times += times

    def close(self) -> bytes:
        """See Encoder."""
        if not self._pictures:
            raise MediaError("a video without frames")
        end = self._times[-1] + 1 / self._fps if self._seconds is None else self._times[0] + self._seconds
        ends = [*self._times[1:], max(self._times[-1], end)]
        # Whole milliseconds: rounding the times, not the durations, keeps the error from adding up.
        durations = [round(end * 1000) - round(time * 1000) for time, end in zip(self._times, ends, strict=True)]
        buffer = io.BytesIO()
        self._pictures[0].save(
            buffer,
            "WEBP",
            save_all=True,
            append_images=self._pictures[1:],
            duration=durations,
            loop=0,
            quality=90,
            method=self._method,
        )
        self.discard()
        # libwebp makes one frame of consecutive equal ones, shown for as long: what was delivered is what is in the file.
        self.frames = getattr(PIL.Image.open(buffer), "n_frames", 1)
        return buffer.getvalue()

    def discard(self) -> None:
        """See Encoder."""
        self._pictures, self._times = [], []
