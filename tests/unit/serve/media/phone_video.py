"""Builds a video as phones record it."""

import io
from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_media import rotate

TIMES = tuple(Fraction(1001 * i + 400 * (i % 3), 30_000) for i in range(24))
"""The times of the frames in seconds: their distance varies."""


def phone_video() -> bytes:
    """Return 24 frames of 10-bit HEVC at a variable rate, with 5.1 sound.

    The frames, 192 x 224 pixels, are stored on their side; the file's header says how to turn them.
    """
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx265", rate=30, options={"crf": "12", "x265-params": "log-level=none"})
        video.width, video.height, video.pix_fmt = 224, 192, "yuv420p10le"
        video.codec_context.time_base = Fraction(1, 30_000)
        sound = container.add_stream("aac", rate=48_000, layout="5.1")
        assert isinstance(sound, av.AudioStream)
        for pixels, time in zip(pan(stranger(), len(TIMES), 192, 224), TIMES, strict=True):
            lying = VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(pixels)), format="rgb24")
            frame = lying.reformat(format="yuv420p10le", dst_colorspace=Colorspace.ITU601)
            frame.pts, frame.time_base = int(time * 30_000), Fraction(1, 30_000)
            container.mux(video.encode(frame))
        wave = np.random.default_rng(0).normal(0, 0.1, (6, 38_400)).astype(np.float32)
        audio = AudioFrame.from_ndarray(wave, format="fltp", layout="5.1")
        audio.sample_rate, audio.pts = 48_000, 0
        for packet in (*video.encode(None), *sound.encode(audio), *sound.encode(None)):
            container.mux(packet)
    return rotate(buffer.getvalue(), 1)
