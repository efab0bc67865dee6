"""Sound that MP4 cannot hold becomes AAC, whatever its rate and layout are."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from serve.media.aac import aac_layout, aac_rate
from serve.media.decode.opening import open_source
from tests.unit.serve.media.make_media import LIMITS, reencode

PITCH = 440


def film(rate: int, layout: str) -> bytes:
    """Return a QuickTime film with half a second of a tone, as PCM of this rate and layout."""
    buffer = io.BytesIO()
    channels = av.AudioLayout(layout).nb_channels
    with av.open(buffer, "w", format="mov") as container:
        video = container.add_stream("mjpeg", rate=10)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = 32, 32, "yuvj420p"
        audio = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        assert isinstance(audio, av.AudioStream)
        for i in range(5):
            frame = VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24").reformat(format="yuvj420p")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        wave = (6000 * np.sin(2 * np.pi * PITCH * np.arange(rate // 2) / rate)).astype(np.int16)
        sound = AudioFrame.from_ndarray(wave.repeat(channels)[None], format="s16", layout=layout)
        sound.sample_rate, sound.pts = rate, 0
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    return buffer.getvalue()


def heard(data: bytes) -> tuple[int, str, float, float]:
    """Return the rate, the layout, the pitch and the seconds of the sound of a result."""
    with av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.audio[0]
        wave = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(stream)])
        assert stream.codec_context.name == "aac"
        pitch = np.argmax(np.abs(np.fft.rfft(wave))) * stream.rate / len(wave)
        return stream.rate, stream.layout.name, float(pitch), len(wave) / stream.rate


@pytest.mark.parametrize(
    ("rate", "layout", "stored_rate", "stored_layout"),
    [
        (6000, "mono", 7350, "mono"),
        (11_127, "mono", 12_000, "mono"),
        (22_254, "stereo", 24_000, "stereo"),
        (37_800, "stereo", 44_100, "stereo"),
        (44_056, "mono", 44_100, "mono"),
        (96_000, "mono", 48_000, "mono"),
        (192_000, "stereo", 48_000, "stereo"),
        (48_000, "7.1.2", 48_000, "5.1"),
        (48_000, "cube", 48_000, "5.1"),
        (48_000, "downmix", 48_000, "stereo"),
        (22_254, "18 channels", 24_000, "stereo"),
        (48_000, "22.2", 48_000, "stereo"),
        (48_000, "9 channels", 48_000, "stereo"),
    ],
)
def test_sound_of_any_rate_and_layout_is_kept(rate: int, layout: str, stored_rate: int, stored_layout: str) -> None:
    kept_rate, kept_layout, pitch, seconds = heard(reencode(open_source(film(rate, layout), LIMITS)).read())
    assert (kept_rate, kept_layout) == (stored_rate, stored_layout)
    assert pitch == pytest.approx(PITCH, abs=4)
    assert seconds == pytest.approx(0.5, abs=0.3)


@pytest.mark.parametrize("rate", [1, 7349, 7350, 8001, 44_101, 48_000, 48_001, 768_000])
def test_the_rate_is_the_lowest_that_loses_nothing(rate: int) -> None:
    context = av.CodecContext.create("aac", "w")
    assert aac_rate(rate) in (context.codec.audio_rates or ())
    assert aac_rate(rate) >= min(rate, 48_000)


@pytest.mark.parametrize("name", ["ambisonic 1", "binaural", "5.1(side)", "hexagonal", "7.1.4", "40 channels", "3 channels"])
def test_any_layout_becomes_one_that_the_encoder_opens(name: str) -> None:
    context = av.CodecContext.create("aac", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate, context.format, context.layout = 48_000, "fltp", aac_layout(av.AudioLayout(name))
    context.open()
    assert context.is_open
