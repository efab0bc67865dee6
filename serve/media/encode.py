"""Videos out: MP4 by PyAV (H.264, BT.709, faststart, audio copied), animated WebP by Pillow."""

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from typing import TypeAlias

import av
import numpy as np
import PIL.Image
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from deployments.wire import Frames
from serve.media.errors import MediaError

AudioPacket: TypeAlias = "Packet[AudioStream]"

TICKS = 90_000  # a second; divides every usual frame rate
_MP4_AUDIO = {"aac", "mp3", "ac3", "eac3", "opus", "alac"}
_BT709 = 1


class Encoder(ABC):
    """Takes frames in order, gives the file at the end. Used from one thread at a time."""

    media_type: str
    extension: str

    @abstractmethod
    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """Encodes uint8 RGB frames ``[n, height, width, 3]`` shown at ``times`` (seconds)."""

    @abstractmethod
    def close(self) -> bytes:
        """Ends the video and returns the file."""


class _ReadBack(io.RawIOBase):
    """A second position in a buffer that is being written: faststart moves the data by reading behind its own writing."""

    def __init__(self, buffer: io.BytesIO) -> None:
        self._buffer = buffer
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: len(self._buffer.getbuffer())}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = None if size < 0 else self._position + size
        data = bytes(self._buffer.getbuffer()[self._position : end])
        self._position += len(data)
        return data


class Mp4Encoder(Encoder):
    """H.264 yuv420p, BT.709, faststart. ``audio``: a file whose first audio stream is copied, with its timing."""

    media_type = "video/mp4"
    extension = "mp4"

    def __init__(self, fps: Fraction, preset: str, crf: int, audio: bytes | None = None) -> None:
        self._fps = fps
        self._options = {"preset": preset, "crf": str(crf)}
        self._audio_file = audio
        self._buffer = io.BytesIO()
        self._container: OutputContainer = av.open(
            self._buffer,
            "w",
            format="mp4",
            options={"movflags": "faststart"},
            io_open=lambda *_: _ReadBack(self._buffer),
        )
        self._reformatter = VideoReformatter()
        self._video: VideoStream | None = None
        self._audio: Iterator[AudioPacket] = iter(())
        self._pending: AudioPacket | None = None

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """See Encoder."""
        video = self._video or self._begin(frames.shape[2], frames.shape[1])
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
            frame.duration = round(TICKS / self._fps)
            self._mux_audio_until(time)
            self._container.mux(video.encode(frame))

    def close(self) -> bytes:
        """See Encoder."""
        if self._video is None:
            raise MediaError("a video without frames")
        self._container.mux(self._video.encode())
        self._mux_audio_until(None)
        self._container.close()
        return self._buffer.getvalue()

    def _begin(self, width: int, height: int) -> VideoStream:
        self._video = self._container.add_stream("libx264", rate=self._fps, options=self._options)
        self._video.width, self._video.height = width + width % 2, height + height % 2
        self._video.pix_fmt = "yuv420p"
        context = self._video.codec_context
        context.time_base = Fraction(1, TICKS)
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = ColorRange.MPEG
        if self._audio_file is not None:
            self._audio = self._read_audio(self._audio_file)
            self._pending = next(self._audio, None)
        return self._video

    def _read_audio(self, file: bytes) -> Iterator[AudioPacket]:
        source = av.open(io.BytesIO(file), mode="r")
        stream = source.streams.audio[0]
        if stream.codec_context.name in _MP4_AUDIO:
            target = self._container.add_stream_from_template(stream)
            return _copy(source, stream, target)
        encoder = self._container.add_stream("aac", rate=stream.rate)
        return _transcode(source, stream, encoder)

    def _mux_audio_until(self, time: Fraction | None) -> None:
        while (packet := self._pending) is not None:
            if time is not None and packet.pts is not None and packet.pts * packet.time_base > time:
                return
            self._container.mux(packet)
            self._pending = next(self._audio, None)


def _copy(source: av.container.InputContainer, stream: AudioStream, target: AudioStream) -> Iterator[AudioPacket]:
    with source:
        for packet in source.demux(stream):
            if packet.dts is not None:  # the one without is the demuxer's end mark
                packet.stream = target
                yield packet


def _transcode(source: av.container.InputContainer, stream: AudioStream, encoder: AudioStream) -> Iterator[AudioPacket]:
    resampler = AudioResampler(format="fltp", layout=stream.layout, rate=stream.rate)
    with source:
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
    """Animated WebP, quality 90, endless loop. Pillow encodes the whole at the end."""

    media_type = "image/webp"
    extension = "webp"

    def __init__(self, fps: Fraction, method: int) -> None:
        self._fps = fps
        self._method = method
        self._pictures: list[PIL.Image.Image] = []
        self._times: list[Fraction] = []

    def add(self, frames: Frames, times: tuple[Fraction, ...]) -> None:
        """See Encoder."""
        self._pictures += [PIL.Image.fromarray(pixels) for pixels in frames]
        self._times += times

    def close(self) -> bytes:
        """See Encoder."""
        if not self._pictures:
            raise MediaError("a video without frames")
        ends = [*self._times[1:], self._times[-1] + 1 / self._fps]
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
        return buffer.getvalue()
