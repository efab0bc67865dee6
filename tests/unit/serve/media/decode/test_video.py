"""Films of every container are decoded to what a player shows, at its times."""

import dataclasses
import io
import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from serve.media.decode.opening import open_source
from serve.media.decode.video import open_video
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.errors import MediaError
from serve.media.samples import clip, stranger, tone
from tests.unit.serve.media.make_film import (
    numbered,
)
from tests.unit.serve.media.make_media import (
    LIMITS,
    decode_all,
    webm,
    webm_that_grows,
)


def test_ten_bit_hevc_keeps_its_levels_and_colours() -> None:
    """Players assume BT.601 for untagged small videos.

    The grey ramp shows the black and white levels, the patch shows the matrix.
    """
    frames = np.zeros((6, 96, 128, 3), np.uint8)
    frames[:] = np.linspace(16, 235, 128, dtype=np.uint8)[None, None, :, None]
    frames[:, 30:60, 40:80] = (180, 60, 40)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        options = {"crf": "4", "x265-params": "log-level=none"}
        stream = container.add_stream("libx265", rate=Fraction(30000, 1001), options=options)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p10le"
        for i, pixels in enumerate(frames):
            frame = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p10le", dst_colorspace=Colorspace.ITU601
            )
            frame.pts, frame.time_base = i * 1001, Fraction(1, 30000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    decoded, times = decode_all(open_video(buffer.getvalue(), LIMITS))
    assert len(decoded) == 6
    np.testing.assert_allclose([float(time) for time in times], [i * 1001 / 30000 for i in range(6)], atol=1e-4)
    error = np.abs(np.stack(decoded).astype(int) - frames)
    assert error[:, :, 4:36].mean() < 2
    assert error[:, 36:54, 46:74].mean() < 3


def test_resampling_a_video_keeps_its_duration() -> None:
    source = open_video(clip(stranger(), count=16, fps=16), LIMITS)
    original, _ = decode_all(source)
    for fps, expected in ((8, 8), (32, 32), (16, 16)):
        resampled = source.at_fps(Fraction(fps))
        frames, times = decode_all(resampled)
        assert len(frames) == resampled.count == expected
        assert float(resampled.duration) == pytest.approx(1.0)
        assert [float(t) for t in times] == pytest.approx([i / fps for i in range(expected)], abs=1e-4)
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame, original[min(15, int(i * 16 / fps))])


@pytest.mark.parametrize("pixels", [64 * 64, 128 * 128 - 1])
def test_a_frame_larger_than_the_header_says_is_refused(pixels: int) -> None:
    source = open_video(webm_that_grows(), dataclasses.replace(LIMITS, pixels=pixels))
    with pytest.raises(MediaError):
        decode_all(source)


def test_a_video_in_an_unknown_codec_is_refused() -> None:
    data = clip(stranger())
    with pytest.raises(MediaError, match="codec that is not supported; re-encode it"):
        open_video(data.replace(b"avc1", b"zzzz"), LIMITS)


def test_audio_alone_is_refused() -> None:
    with pytest.raises(MediaError, match="contains no video; send"):
        open_video(tone(0.5), LIMITS)


@pytest.mark.parametrize(("number", "shift"), [(6, -40), (6, -60), (6, -120), (7, 0)])
def test_time_stamps_that_repeat_or_step_back_are_nudged(number: int, shift: int) -> None:
    plain = webm(numbered(12), fps=25)
    with av.open(io.BytesIO(plain), mode="r") as container:
        position = [packet.pos for packet in container.demux(video=0) if packet.size][number]
    at = plain.index((40 * number).to_bytes(2, "big", signed=True), position)
    data = plain[:at] + (40 * number + shift).to_bytes(2, "big", signed=True) + plain[at + 2 :]
    source = open_source(data, LIMITS)
    frames, _ = decode_all(source)
    assert len(frames) == source.count == 12
    assert source.damaged == 0
    assert [round(float(frame.mean()) / 10) for frame in frames] == list(range(12))
    encoder = Mp4Encoder(source.fps, preset="ultrafast", crf=18, seconds=source.duration)
    for chunk in source.chunks():
        encoder.add(chunk.frames, chunk.times)
    again = decode_all(open_source(encoder.close(), LIMITS))[1]
    assert len(again) == 12
    assert all(later > earlier for earlier, later in itertools.pairwise(again))
