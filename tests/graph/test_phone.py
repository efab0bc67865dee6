"""A film as phones make it, through the endpoint: 10-bit HEVC at a variable rate, turned by its header, with 5.1 sound."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import httpx
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from serve.media.decode import open_source
from serve.media.samples import PORTRAIT, pan, stranger
from tests.graph.conftest import Service
from tests.unit.serve.media.make_media import LIMITS, decode_all, rotate

pytestmark = pytest.mark.graph
TIMES = tuple(Fraction(1001 * i + 400 * (i % 3), 30_000) for i in range(24))


def phone_film() -> bytes:
    """Stored lying on its side; the header says how to hold it."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx265", rate=30, options={"crf": "12", "x265-params": "log-level=none"})
        video.width, video.height, video.pix_fmt = 224, 192, "yuv420p10le"
        video.codec_context.time_base = Fraction(1, 30_000)
        sound = container.add_stream("aac", rate=48_000, layout="5.1")
        for pixels, time in zip(pan(stranger(), len(TIMES), 192, 224), TIMES, strict=True):
            lying = VideoFrame.from_ndarray(np.ascontiguousarray(np.rot90(pixels)), format="rgb24")
            frame = lying.reformat(format="yuv420p10le", dst_colorspace=Colorspace.ITU601)
            frame.pts, frame.time_base = int(time * 30_000), Fraction(1, 30_000)
            container.mux(video.encode(frame))
        wave = np.random.default_rng(0).normal(0, 0.1, (6, 38_400)).astype(np.float32)
        heard = AudioFrame.from_ndarray(wave, format="fltp", layout="5.1")
        heard.sample_rate, heard.pts = 48_000, 0
        container.mux((*video.encode(), *sound.encode(heard), *sound.encode(None)))
    return rotate(buffer.getvalue(), 1)


def packets(film: bytes) -> list[tuple[int | None, bytes]]:
    with av.open(io.BytesIO(film), mode="r") as container:
        assert container.streams.audio[0].codec_context.channels == 6
        return [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def test_a_phones_film_comes_back_upright_with_its_times_and_its_sound(service: Service, http: httpx.Client) -> None:
    film = phone_film()
    before, shown = decode_all(source := open_source(film, LIMITS))
    assert before[0].shape == (224, 192, 3), "the film is not turned"
    assert len({b - a for a, b in pairwise(shown)}) > 1, "its rate does not vary"
    files = {"source_video": ("a", film), "reference_image": ("b", PORTRAIT.read_bytes())}
    response = http.post(f"{service.url}/batch-video-faceswap", files=files)
    assert response.status_code == 200, response.text
    assert response.headers["X-Frames-Swapped"] == str(len(TIMES))
    after, times = decode_all(result := open_source(response.content, LIMITS))
    assert times == shown
    assert result.duration == source.duration
    assert packets(response.content) == packets(film)
    for old, new in zip(before, after, strict=True):
        difference = np.abs(old.astype(int) - new).mean(axis=2)
        assert np.percentile(difference, 25) < 4, "what is no face is as it was"
        assert difference.max() > 40, "and the face is another"
