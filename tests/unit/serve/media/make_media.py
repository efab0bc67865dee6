"""Builders of media files, and readers of them, for the tests of several modules."""

import gc
import io
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import PIL.Image
from av import CodecContext
from av.audio.frame import AudioFrame
from av.bitstream import BitStreamFilterContext
from av.video.frame import VideoFrame

from deployments.wire import Frames, Image
from serve.media.decode.source import Source, SourceLimits
from serve.media.encode.encoder import Encoder
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.samples import pan, stranger, with_sound
from serve.media.spool import Spool, read_media

LIMITS = SourceLimits(frames=100, seconds=20, pixels=2_000_000)


def encode_all(encoder: Encoder, frames: Frames, fps: Fraction) -> bytes:
    """Encode ``frames`` at a constant rate, four at a time."""
    for i in range(0, len(frames), 4):
        part = frames[i : i + 4]
        encoder.add(part, tuple((i + k) / fps for k in range(len(part))))
    return read_media(encoder.close())


def decode_all(source: Source) -> tuple[list[Image], list[Fraction]]:
    """Return all frames of ``source`` and their times in seconds."""
    frames, times = zip(*((frame.copy(), time) for frame, time in source.frames()), strict=True)
    return list(frames), list(times)


def reencode(source: Source, seconds: Fraction | None = None) -> Spool:
    """Return ``source`` as a new MP4 file with its audio."""
    encoder = Mp4Encoder(source.fps, preset="veryfast", crf=18, seconds=seconds, draft=source.audio is not None)
    for chunk in source.chunks():
        encoder.add(chunk.frames, chunk.times)
    return encoder.close() if source.audio is None else with_sound(encoder, source.audio)


def rotate(data: bytes, quarter_turns: int) -> bytes:
    """Return an MP4 file with a display matrix that turns it clockwise, as phones write it."""
    cos, sin = {1: (0, 1), 2: (-1, 0), 3: (0, -1)}[quarter_turns]
    matrix = [cos << 16, sin << 16, 0, -sin << 16, cos << 16, 0, 0, 0, 1 << 30]
    at = data.index(b"tkhd") + 4 + 4 + 4 * 5 + 8 + 2 * 4
    return data[:at] + b"".join(v.to_bytes(4, "big", signed=True) for v in matrix) + data[at + 36 :]


def animation(kind: str, frames: Frames, durations_ms: int | Sequence[int] = 100) -> bytes:
    """Return an animated ``GIF`` or ``WEBP``."""
    images = [PIL.Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(buffer, kind, save_all=True, append_images=images[1:], duration=durations_ms)
    return buffer.getvalue()


def webm(frames: Frames, fps: int = 10) -> bytes:
    """Return a WebM file (VP8) without audio."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def turned_midway(mp4: bytes, at: int, degrees: int) -> bytes:
    """Return an H.264 file whose frames say that they are rotated, from number ``at`` on."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(mp4), mode="r") as source, av.open(buffer, "w", format="mp4") as container:
        (video,) = source.streams.video
        stream = container.add_stream_from_template(video)
        for i, packet in enumerate(packet for packet in source.demux(video) if packet.size):
            packets = [packet]
            if i >= at:  # a filter changes only the first packet that it is given
                turn = BitStreamFilterContext(f"h264_metadata=display_orientation=insert:rotate={degrees}", video)
                packets = turn.filter(packet)
            for turned in packets:
                turned.stream = stream
                container.mux(turned)
    return buffer.getvalue()


def webm_that_grows() -> bytes:
    """Return a WebM stream of three frames of 64 x 64 and three of 128 x 128 pixels."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(6):
            side = 64 if i < 3 else 128
            frame = VideoFrame.from_ndarray(np.full((side, side, 3), 40 * i, np.uint8), format="rgb24")
            codec = CodecContext.create("libvpx", "w")
            codec.width, codec.height, codec.pix_fmt, codec.time_base = side, side, "yuv420p", Fraction(1, 10)
            for packet in (*codec.encode(frame), *codec.encode(None)):
                packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 10), 1
                packet.pts = packet.dts = i
                container.mux(packet)
    return buffer.getvalue()


def film(container_format: str, codec: str, wave: npt.NDArray[np.float32], layout: str) -> bytes:
    """Return eight H.264 frames with the audio ``wave``, ``[channels, samples]`` at 48 kHz."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container_format) as container:
        video = container.add_stream("libx264", rate=16)
        video.width, video.height, video.pix_fmt = 96, 96, "yuv420p"
        audio = container.add_stream(codec, rate=48_000, layout=layout)
        assert isinstance(audio, av.AudioStream)
        for pixels in pan(stranger(), 8, 96, 96):
            container.mux(video.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(video.encode())
        frame = AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = 48_000, 0
        resampler = av.AudioResampler(format=audio.format, layout=layout, rate=48_000)
        for resampled in resampler.resample(frame):
            container.mux(audio.encode(resampled))
        container.mux(audio.encode(None))
    return buffer.getvalue()


def audio_packets(data: bytes) -> list[tuple[int | None, bytes]]:
    """Return the time stamp and the payload of each packet of the first audio stream."""
    with av.open(io.BytesIO(data), mode="r") as container:
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def unnamed_files() -> int:
    """Return how many files this process has open that have no name, as spools have none.

    Garbage of earlier tests, which may hold such files, is collected first. The databases of jobs,
    whose folders a test has deleted, are no such files.
    """
    gc.collect()
    links = [Path("/proc/self/fd") / fd for fd in os.listdir("/proc/self/fd")]
    return sum(
        "(deleted)" in (name := str(link.readlink())) and "/ryla-jobs-" not in name for link in links if link.is_symlink()
    )
