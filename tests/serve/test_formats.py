"""Formats that people's files have: deep colours, and sound of any number of channels."""

import gc
import io
import weakref
from contextlib import nullcontext
from fractions import Fraction

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from serve.media.decode import open_source
from serve.media.encode import Mp4Encoder
from serve.media.errors import MediaError
from serve.media.spool import Spool
from serve.samples import clip, pan, stranger
from tests.serve.media import LIMITS, all_of, made


def test_ten_bit_hevc_is_read_as_it_looks() -> None:
    """Untagged colours of a small video are BT.601; a grey ramp tells black and white levels, a patch tells the matrix."""
    frames = np.zeros((6, 96, 128, 3), np.uint8)
    frames[:] = np.linspace(16, 235, 128, dtype=np.uint8)[None, None, :, None]
    frames[:, 30:60, 40:80] = (180, 60, 40)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx265", rate=Fraction(30000, 1001), options={"crf": "4", "x265-params": "log-level=none"}
        )
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p10le"
        for i, pixels in enumerate(frames):
            frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p10le", dst_colorspace=Colorspace.ITU601
            )
            frame.pts, frame.time_base = i * 1001, Fraction(1, 30000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    read, times = all_of(open_source(buffer.getvalue(), LIMITS))
    assert len(read) == 6
    np.testing.assert_allclose([float(time) for time in times], [i * 1001 / 30000 for i in range(6)], atol=1e-4)
    error = np.abs(np.stack(read).astype(int) - frames)
    assert error[:, :, 4:36].mean() < 2
    assert error[:, 36:54, 46:74].mean() < 3


@pytest.mark.parametrize("layout", ["mono", "5.1"])
def test_sound_of_any_number_of_channels_is_kept_exactly(layout: str) -> None:
    buffer = io.BytesIO()
    count = {"mono": 1, "5.1": 6}[layout]
    with av.open(buffer, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=16)
        video.width, video.height, video.pix_fmt = 96, 96, "yuv420p"
        sound = container.add_stream("aac", rate=48_000, layout=layout)
        for pixels in pan(stranger(), 8, 96, 96):
            container.mux(video.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        wave = np.random.default_rng(0).normal(0, 0.1, (count, 24_000)).astype(np.float32)
        frame = AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux((*video.encode(), *sound.encode(frame), *sound.encode(None)))
    source = open_source(buffer.getvalue(), LIMITS)
    encoder = Mp4Encoder(source.fps, "veryfast", 18, source.audio)
    for chunk in source.chunks():
        encoder.add(chunk.frames, chunk.times)
    made_of = []
    for data in (buffer.getvalue(), encoder.close().read()):
        with av.open(io.BytesIO(data), mode="r") as container:
            stream = container.streams.audio[0]
            assert stream.codec_context.channels == count
            made_of.append([(packet.pts, bytes(packet)) for packet in container.demux(stream) if packet.size])
    assert made_of[0] == made_of[1]


def test_a_video_without_sound_stays_without() -> None:
    frames = pan(stranger(), 4, 96, 96)
    source = open_source(made(Mp4Encoder(Fraction(16), "veryfast", 18), frames, Fraction(16)), LIMITS)
    assert source.audio is None


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_a_source_on_disk_is_let_go_with_its_last_frame(part: float) -> None:
    """Without waiting for the garbage collector, which may not run for minutes: a large upload is gigabytes of disk."""
    whole = clip(stranger())
    gc.collect()
    gc.disable()
    try:
        spool = Spool.empty()
        spool.file.write(whole[: int(len(whole) * part)])
        gone = weakref.ref(spool)
        with pytest.raises(MediaError) if part < 1 else nullcontext():
            source = open_source(spool, LIMITS)
            encoder = Mp4Encoder(source.fps, "veryfast", 18, source.audio)
            for chunk in source.chunks():
                encoder.add(chunk.frames, chunk.times)
            encoder.close()
            assert source.audio is spool
            del source, encoder
        del spool
        assert gone() is None
    finally:
        gc.enable()
