"""Formats that people's files have: deep colours, and sound of any number of channels."""

import dataclasses
import gc
import io
import weakref
from contextlib import nullcontext
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest
from av import CodecContext
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from serve.media.decode import open_source
from serve.media.encode import Encoder, Mp4Encoder, WebpEncoder
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


@pytest.mark.parametrize(
    "text",
    [
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=a\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 45004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        b"ffconcat version 1.0\nfile '/etc/hostname'\n",
        b"#EXTM3U\n#EXTINF:1,\n/etc/hostname\n",
    ],
)
def test_texts_that_name_other_sources_are_no_videos(text: bytes) -> None:
    """FFmpeg, left to guess, listens on a socket for the first, and never returns."""
    with pytest.raises(MediaError, match="send MP4, WebM"):
        open_source(text, LIMITS)


def changing_webm() -> bytes:
    """Three frames of 64 x 64, then three of 128 x 128, in one stream, as a recorded call has them."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for i in range(6):
            side = 64 if i < 3 else 128
            frame = VideoFrame.from_ndarray(np.full((side, side, 3), 40 * i, np.uint8), format="rgb24")
            coder = CodecContext.create("libvpx", "w")
            coder.width, coder.height, coder.pix_fmt, coder.time_base = side, side, "yuv420p", Fraction(1, 10)
            for packet in (*coder.encode(frame), *coder.encode(None)):
                packet.stream, packet.time_base, packet.duration = stream, Fraction(1, 10), 1
                packet.pts = packet.dts = i
                container.mux(packet)
    return buffer.getvalue()


def test_a_video_that_changes_its_size_keeps_that_of_its_first_frame() -> None:
    frames, times = all_of(open_source(changing_webm(), LIMITS))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 6
    assert [float(frame.mean()) for frame in frames] == pytest.approx([40 * i for i in range(6)], abs=6)
    assert [float(time) for time in times] == pytest.approx([i / 10 for i in range(6)], abs=1e-3)


@pytest.mark.parametrize("pixels", [64 * 64, 128 * 128 - 1])
def test_a_frame_larger_than_the_header_says_is_refused(pixels: int) -> None:
    source = open_source(changing_webm(), dataclasses.replace(LIMITS, pixels=pixels))
    with pytest.raises(MediaError):
        all_of(source)


def animated(kind: str) -> bytes:
    pictures = [PIL.Image.fromarray(frame) for frame in pan(stranger(), 20, 96, 96)]
    buffer = io.BytesIO()
    if kind == "GIF":
        pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=100)
        return buffer.getvalue()
    with av.open(buffer, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(VideoFrame.from_image(picture)))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "WebM"])
def test_a_file_cut_at_any_tenth_is_no_shorter_video(kind: str) -> None:
    whole = animated(kind)
    assert len(all_of(open_source(whole, LIMITS))[0]) == 20
    for tenth in range(1, 10):
        with pytest.raises(MediaError):
            all_of(open_source(whole[: len(whole) * tenth // 10], LIMITS))


def test_a_rate_of_many_digits_is_no_obstacle() -> None:
    """The mean rate of a variable one: its terms may not fit into 32 bits."""
    rate = Fraction(2_501_000_000, 83_524_953)
    frames = pan(stranger(), 4, 96, 96)
    _, times = all_of(open_source(made(Mp4Encoder(rate, "veryfast", 18), frames, rate), LIMITS))
    assert [float(time) for time in times] == pytest.approx([float(i / rate) for i in range(4)], abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "count"), [(Mp4Encoder, 1), *((kind, count) for kind in (Mp4Encoder, WebpEncoder) for count in (2, 5, 12))]
)
def test_the_last_frame_is_shown_as_long_as_it_was(kind: type[Encoder], count: int) -> None:
    """At a variable rate; no mean says how long."""
    gaps = np.random.default_rng(count).integers(9, 90, count - 1)
    times = tuple(Fraction(int(gaps[:i].sum()), 1000) for i in range(count))
    seconds = times[-1] + Fraction(7, 10)
    fps = count / seconds
    encoder = Mp4Encoder(fps, "medium", 18, None, seconds) if kind is Mp4Encoder else WebpEncoder(fps, 0, count, seconds)
    encoder.add(pan(stranger(), count, 96, 96), times)
    media = encoder.close()
    source = open_source(media if isinstance(media, bytes) else media.read(), LIMITS)
    assert source.duration == seconds
    assert tuple(time for _, time in source.frames()) == times


@pytest.mark.parametrize("size", [(832, 480), (192, 224), (102, 66)])
def test_the_same_frames_make_the_same_bytes(size: tuple[int, int]) -> None:
    """Whatever lay in the memory before."""
    frames = pan(stranger(), 17, *size)
    files = set()
    for seed in range(6):
        for length in (30_000, 100_000, 300_000, 2_000_000) * 5:
            np.random.default_rng(seed).integers(0, 255, length, dtype=np.uint8)
        files.add(made(Mp4Encoder(Fraction(16), "veryfast", 18), frames, Fraction(16)))
    assert len(files) == 1


@pytest.mark.parametrize(("layout", "count"), [("mono", 1), ("5.1", 6)])
def test_sound_that_mp4_has_not_keeps_its_channels(layout: str, count: int) -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=16)
        video.width, video.height, video.pix_fmt = 96, 96, "yuv420p"
        sound = container.add_stream("flac", rate=48_000, layout=layout)
        for pixels in pan(stranger(), 8, 96, 96):
            container.mux(video.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        wave = (np.sin(np.arange(24_000) / 20) * 8000).astype(np.int16)
        frame = AudioFrame.from_ndarray(np.repeat(wave, count)[None], format="s16", layout=layout)
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux((*video.encode(), *sound.encode(frame), *sound.encode(None)))
    source = open_source(buffer.getvalue(), LIMITS)
    encoder = Mp4Encoder(source.fps, "veryfast", 18, source.audio)
    for chunk in source.chunks():
        encoder.add(chunk.frames, chunk.times)
    with av.open(io.BytesIO(encoder.close().read()), mode="r") as container:
        decoded = [frame.to_ndarray() for frame in container.decode(audio=0)]
    joined = np.concatenate(decoded, axis=1)
    assert joined.shape[0] == count
    assert joined[0, 8000:16_000].std() * 2**0.5 == pytest.approx(8000 / 32768, rel=0.05)
