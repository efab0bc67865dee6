"""Media in and out: pixels, times, sound, and what is wrong with a file."""

import gc
import io
import os
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import psutil
import pytest

from serve.media.decode import SourceLimits, open_source
from serve.media.encode import TICKS, Mp4Encoder, WebpEncoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import cover, decode_base64, decode_image, encode_image
from serve.media.spool import Spool
from serve.samples import clip, data_uri, pan, stranger, tone
from tests.serve.media import LIMITS, all_of, made, rotated


@pytest.mark.parametrize("fps", [Fraction(16), Fraction(30000, 1001), Fraction(25, 2)])
def test_mp4_keeps_pixels_and_times(fps: Fraction) -> None:
    frames = pan(stranger(), 9, 192, 224)
    data = made(Mp4Encoder(fps, "veryfast", 12), frames, fps)
    assert data.find(b"moov") < data.find(b"mdat")
    source = open_source(data, LIMITS)
    assert (source.count, source.fps) == (9, pytest.approx(fps, rel=1e-4))
    back, times = all_of(source)
    assert [float(t) for t in times] == pytest.approx([i / fps for i in range(9)], abs=1e-4)
    for a, b in zip(frames, back, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 3
    with av.open(io.BytesIO(data), mode="r") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.codec_context.colorspace, stream.codec_context.color_primaries, stream.codec_context.color_trc) == (
            1,
            1,
            1,
        )


@pytest.mark.parametrize("colour", [(200, 30, 60), (20, 180, 40), (10, 20, 230), (255, 255, 255), (0, 0, 0)])
def test_colours_do_not_shift(colour: tuple[int, int, int]) -> None:
    frames = np.tile(np.array(colour, np.uint8), (1, 64, 64, 1))
    (frame,), _ = all_of(open_source(made(Mp4Encoder(Fraction(16), "veryfast", 8), frames, Fraction(16)), LIMITS))
    assert np.abs(frame.reshape(-1, 3).astype(int) - colour).max() <= 4


def test_odd_sizes_gain_a_row_and_a_column() -> None:
    frames = pan(stranger(), 1, 63, 65)
    (frame,), _ = all_of(open_source(made(Mp4Encoder(Fraction(16), "veryfast", 8), frames, Fraction(16)), LIMITS))
    assert frame.shape == (66, 64, 3)


def test_webp_keeps_pixels_and_rounds_times_not_durations() -> None:
    fps = Fraction(24)
    frames = pan(stranger(), 25, 96, 112)
    data = made(WebpEncoder(fps, 0), frames, fps)
    picture = PIL.Image.open(io.BytesIO(data))
    assert (picture.format, picture.n_frames, picture.info["loop"]) == ("WEBP", 25, 0)
    back, times = all_of(open_source(data, LIMITS))
    assert float(times[-1]) == pytest.approx(1.0, abs=0.001)
    for a, b in zip(frames, back, strict=True):
        assert np.abs(a.astype(int) - b).mean() < 6


def test_audio_is_copied_packet_by_packet_with_its_offset() -> None:
    source = open_source(clip(stranger()), LIMITS)
    assert source.audio is not None
    encoder = Mp4Encoder(source.fps, "veryfast", 18, source.audio)
    for chunk in source.chunks():
        encoder.add(chunk.frames, chunk.times)
    packets = [
        [(p.pts, p.time_base, bytes(p)) for p in container.demux(container.streams.audio[0]) if p.size]
        for container in (av.open(io.BytesIO(data), mode="r") for data in (clip(stranger()), encoder.close().read()))
    ]
    assert len(packets[0]) > 40
    assert packets[0] == packets[1]


def test_audio_that_mp4_cannot_hold_is_transcoded() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        video = container.add_stream("libvpx", rate=16)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream("pcm_s16le", rate=48_000)
        with av.open(io.BytesIO(tone(1.0)), mode="r") as sound:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=48_000)
            for sound_frame in sound.decode(audio=0):
                for piece in resampler.resample(sound_frame):
                    container.mux(audio.encode(piece))
        for i, pixels in enumerate(pan(stranger(), 16, 64, 64)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = i
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    source = open_source(buffer.getvalue(), LIMITS)
    encoder = Mp4Encoder(source.fps, "veryfast", 18, source.audio)
    for chunk in source.chunks():
        encoder.add(chunk.frames, chunk.times)
    with av.open(encoder.close().open(), mode="r") as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        samples = sum(frame.samples for frame in container.decode(audio=0))
    assert samples / 48_000 == pytest.approx(1.0, abs=0.1)


def test_variable_frame_rate_is_kept() -> None:
    times = tuple(Fraction(t, 100) for t in (0, 5, 30, 35, 90, 100))
    encoder = Mp4Encoder(Fraction(10), "veryfast", 18)
    encoder.add(pan(stranger(), 6, 64, 64), times)
    source = open_source(encoder.close(), LIMITS)
    back, shown = all_of(source)
    assert len(back) == 6
    assert [float(t) for t in shown] == pytest.approx([float(t) for t in times], abs=1e-4)


def test_fps_resamples_a_video_and_keeps_its_duration() -> None:
    source = open_source(clip(stranger(), count=16, fps=16), LIMITS)
    original, _ = all_of(source)
    for fps, expected in ((8, 8), (32, 32), (16, 16)):
        resampled = source.at(Fraction(fps))
        frames, times = all_of(resampled)
        assert len(frames) == resampled.count == expected
        assert float(resampled.duration) == pytest.approx(1.0)
        assert [float(t) for t in times] == pytest.approx([i / fps for i in range(expected)], abs=1e-4)
        for i, frame in enumerate(frames):
            np.testing.assert_array_equal(frame, original[min(15, int(i * 16 / fps))])


def test_fps_retimes_an_animation_and_keeps_its_frames() -> None:
    pictures = [PIL.Image.fromarray(frame) for frame in pan(stranger(), 5, 64, 64)]
    for kind in ("GIF", "WEBP"):
        buffer = io.BytesIO()
        pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:], duration=[100, 200, 50, 100, 150])
        source = open_source(buffer.getvalue(), LIMITS)
        assert (source.count, float(source.duration)) == (5, pytest.approx(0.6))
        assert [float(t) for t in all_of(source)[1]] == pytest.approx([0, 0.1, 0.3, 0.35, 0.45])
        retimed = source.at(Fraction(25))
        assert (retimed.count, float(retimed.duration)) == (5, pytest.approx(0.2))


def test_a_still_is_a_video_of_one_frame() -> None:
    source = open_source(encode_image(stranger(), "image/png"), LIMITS)
    (frame,), _ = all_of(source)
    np.testing.assert_array_equal(frame, stranger())
    assert source.fps == 16


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_of_a_video_is_honoured(turns: int) -> None:
    frames = pan(stranger(), 2, 96, 64)
    plain = made(Mp4Encoder(Fraction(16), "veryfast", 8), frames, Fraction(16))
    upright, _ = all_of(open_source(plain, LIMITS))
    turned, _ = all_of(open_source(rotated(plain, turns), LIMITS))
    np.testing.assert_array_equal(turned[0], np.rot90(upright[0], -turns))


def test_exif_rotation_and_alpha() -> None:
    image = stranger()
    buffer = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it a quarter turn clockwise
    PIL.Image.fromarray(image).save(buffer, "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(buffer.getvalue(), 10**6), np.rot90(image, -1))
    clear = np.dstack([image, np.zeros(image.shape[:2], np.uint8)])
    buffer = io.BytesIO()
    PIL.Image.fromarray(clear, "RGBA").save(buffer, "PNG")
    assert (decode_image(buffer.getvalue(), 10**6) == 255).all()


def test_cover_scales_and_crops_the_centre() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    image[:, 50:150] = 255
    assert (cover(image, 64, 64) >= 250).mean() > 0.95
    assert cover(image, 64, 32).shape == (32, 64, 3)


def test_base64_in_all_its_forms() -> None:
    data = bytes(range(256)) * 3 + b"x"
    uri = data_uri(data, "image/png")
    bare = uri.split(",")[1]
    wrapped = "\r\n".join(bare[i : i + 60] for i in range(0, len(bare), 60))
    for text in (uri, bare, wrapped, " " + uri + "\n", bare.rstrip("="), uri.replace("image/png", "IMAGE/PNG;charset=utf-8")):
        assert decode_base64(text) == data
    for text in ("http://x/a.png", "file:///etc/passwd", "data:image/png,abc", "***", "", "data:image/png;base64,"):
        with pytest.raises(MediaError):
            decode_base64(text)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_video_is_an_error_not_a_shorter_video(share: float) -> None:
    whole = clip(stranger())
    with pytest.raises(MediaError):
        list(open_source(whole[: int(len(whole) * share)], LIMITS).frames())


def test_videos_over_the_limits_are_refused_before_a_frame_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = clip(stranger())
    animation = made(WebpEncoder(Fraction(16), 0), pan(stranger(), 5, 64, 64), Fraction(16))
    monkeypatch.setattr("serve.media.decode._to_rgb", lambda _: pytest.fail("decoded"))
    for data, limits in (
        (whole, SourceLimits(16, 20, 10**7)),
        (whole, SourceLimits(100, 0.5, 10**7)),
        (whole, SourceLimits(100, 20, 1000)),
        (animation, SourceLimits(4, 20, 10**7)),
        (animation, SourceLimits(100, 0.1, 10**7)),
    ):
        with pytest.raises(MediaTooLarge):
            open_source(data, limits)


def test_sound_alone_is_no_video() -> None:
    with pytest.raises(MediaError, match="no video"):
        open_source(tone(0.5), LIMITS)


@pytest.mark.parametrize(("media_type", "error"), [("image/jpeg", 6), ("image/png", 0), ("image/webp", 8)])
def test_pictures_out(media_type: str, error: float) -> None:
    back = decode_image(encode_image(stranger(), media_type), 10**6)
    assert np.abs(back.astype(int) - stranger()).mean() <= error


def spools() -> int:
    """Files that are open and have no name: what a video on disk is."""
    links = [Path("/proc/self/fd") / fd for fd in os.listdir("/proc/self/fd")]
    return sum("(deleted)" in str(link.readlink()) for link in links if link.is_symlink())


def threads() -> int:
    return psutil.Process().num_threads()


@pytest.mark.parametrize("close", [True, False])
def test_an_encoder_leaves_no_thread_behind(close: bool) -> None:
    """Without waiting for the garbage collector: x264 has a handful of threads a video."""
    frames = pan(stranger(), 4, 96, 96)

    def use() -> None:
        encoder = Mp4Encoder(Fraction(16), "veryfast", 18, tone(0.5))
        encoder.add(frames, tuple(Fraction(i, 16) for i in range(4)))
        if close:
            encoder.close()
        encoder.discard()

    use()
    gc.collect()
    gc.disable()
    try:
        before = threads(), spools()
        for _ in range(5):
            use()
        assert threads() <= before[0]
        assert spools() <= before[1]
    finally:
        gc.enable()


def test_a_gif_whose_later_frame_is_huge_is_refused_before_that_frame_is_decoded() -> None:
    first, later = (PIL.Image.new("P", size) for size in ((1, 1), (9000, 9000)))
    buffer = io.BytesIO()
    first.save(buffer, "GIF", save_all=True, append_images=[first])
    small = buffer.getvalue()
    buffer = io.BytesIO()
    later.save(buffer, "GIF")
    huge = buffer.getvalue()
    frame = huge[huge.index(b"\x2c") :]  # its image block, put behind the first one's
    bomb = small[:-1] + frame
    assert len(bomb) < 200_000
    before = psutil.Process().memory_info().rss
    with pytest.raises(MediaTooLarge, match="9000 x 9000"):
        open_source(bomb, LIMITS)
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


def test_frames_that_an_edit_list_cuts_away_are_not_missed() -> None:
    """Phones trim a clip by an edit list: all packets are there, only the later frames are shown."""
    whole = clip(stranger(), count=32)
    at = whole.index(b"elst") + 4
    assert whole[at] == 0  # version 0: entries of duration, media time, rate, 4 bytes each
    count = int.from_bytes(whole[at + 4 : at + 8], "big")
    entry = at + 8 + (count - 1) * 12
    duration, start = (int.from_bytes(whole[entry + o : entry + o + 4], "big") for o in (0, 4))
    cut = bytearray(whole)
    cut[entry : entry + 4] = (duration // 2).to_bytes(4, "big")
    cut[entry + 4 : entry + 8] = (start + TICKS).to_bytes(4, "big")
    source = open_source(bytes(cut), LIMITS)
    frames, _ = all_of(source)
    assert len(frames) == source.count < 32


def test_equal_frames_become_one_and_are_counted_as_one() -> None:
    encoder = WebpEncoder(Fraction(16), 0)
    encoder.add(np.repeat(stranger()[None], 6, axis=0), tuple(Fraction(i, 16) for i in range(6)))
    data = encoder.close()
    assert encoder.frames == getattr(PIL.Image.open(io.BytesIO(data)), "n_frames", 1)


def test_sixteen_bits_of_grey_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    buffer = io.BytesIO()
    PIL.Image.fromarray(ramp).save(buffer, "PNG")
    back = decode_image(buffer.getvalue(), 10**6)[..., 0].ravel().astype(int)
    assert np.abs(back - np.arange(256)).max() <= 1


def test_two_pictures_in_one_jpeg_are_a_still() -> None:
    pictures = [PIL.Image.fromarray(stranger()), PIL.Image.fromarray(stranger()[:80, :60])]
    buffer = io.BytesIO()
    pictures[0].save(buffer, "MPO", save_all=True, append_images=pictures[1:])
    source = open_source(buffer.getvalue(), LIMITS)
    assert source.count == 1
    assert all_of(source)[0][0].shape == stranger().shape


def test_what_a_format_cannot_hold_is_said() -> None:
    wide = np.zeros((1, 4, 17_000, 3), np.uint8)
    with pytest.raises(MediaTooLarge, match="MP4"):
        Mp4Encoder(Fraction(16), "veryfast", 18).add(wide, (Fraction(0),))
    with pytest.raises(MediaTooLarge, match="WebP"):
        WebpEncoder(Fraction(16), 0).add(wide, (Fraction(0),))
    for media_type, side in (("image/webp", 17_000), ("image/jpeg", 66_000)):
        with pytest.raises(MediaTooLarge):
            encode_image(np.zeros((4, side, 3), np.uint8), media_type)


def test_a_file_on_disk_has_no_name_and_as_many_readers_as_one_likes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = spools()
    spool = Spool.empty()
    spool.file.write(bytes(range(100)))
    one, other = spool.open(), spool.open()
    assert one.read(3) == bytes(range(3))
    spool.file.write(b"more")
    assert other.read() == bytes(range(100)) + b"more"
    assert one.read(2) == bytes([3, 4])
    assert one.seek(-4, io.SEEK_END) == 100
    assert one.read() == b"more"
    assert spool.size == 104
    assert list(tmp_path.iterdir()) == []
    assert spools() == before + 1
    del spool, one, other
    assert spools() == before


def test_a_webp_too_long_for_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.media.encode.MAX_WEBP_BYTES", 100_000)
    encoder = WebpEncoder(Fraction(16), 0)
    encoder.add(pan(stranger(), 2, 96, 96), (Fraction(0), Fraction(1, 16)))
    with pytest.raises(MediaTooLarge, match="video/mp4"):
        encoder.add(pan(stranger(), 2, 96, 96), (Fraction(1, 8), Fraction(3, 16)))


def test_a_webp_that_will_be_too_long_is_refused_by_its_first_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when a long film is almost done."""
    monkeypatch.setattr("serve.media.encode.MAX_WEBP_BYTES", 100_000)
    with pytest.raises(MediaTooLarge, match="video/mp4"):
        WebpEncoder(Fraction(16), 0, count=4).add(pan(stranger(), 2, 96, 96), (Fraction(0), Fraction(1, 16)))
