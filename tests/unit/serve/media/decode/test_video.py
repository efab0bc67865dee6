import dataclasses
import io
from fractions import Fraction

import av
import numpy as np
import PIL.Image
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace

from serve.media.decode.video import open_video
from serve.media.encode.mp4 import TICKS, Mp4Encoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.samples import clip, pan, stranger, tone
from tests.unit.serve.media.make_media import LIMITS, decode_all, encode_all, rotate, turned_midway, webm, webm_that_grows


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


def test_untagged_video_of_720_lines_is_bt709() -> None:
    frame = np.full((720, 64, 3), (180, 60, 40), np.uint8)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=16, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 720, "yuv420p"
        rgb = VideoFrame.from_ndarray(frame, format="rgb24")
        converted = rgb.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        converted.pts, converted.time_base = 0, Fraction(1, 16)
        container.mux(stream.encode(converted))
        container.mux(stream.encode())
    (decoded,), _ = decode_all(open_video(buffer.getvalue(), LIMITS))
    assert np.abs(decoded.astype(int) - frame).mean() < 3


@pytest.mark.parametrize("quarter_turns", [1, 2, 3])
def test_the_rotation_of_a_video_is_applied(quarter_turns: int) -> None:
    frames = pan(stranger(), 2, 96, 64)
    plain = encode_all(Mp4Encoder(Fraction(16), "veryfast", 8), frames, Fraction(16))
    upright, _ = decode_all(open_video(plain, LIMITS))
    turned, _ = decode_all(open_video(rotate(plain, quarter_turns), LIMITS))
    np.testing.assert_array_equal(turned[0], np.rot90(upright[0], -quarter_turns))


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


def test_frames_that_an_edit_list_cuts_away_are_not_missed() -> None:
    """Phones trim a clip with an edit list: all packets stay, but only some frames are shown."""
    whole = clip(stranger(), count=32)
    at = whole.index(b"elst") + 4
    assert whole[at] == 0  # version 0: duration, media time and rate take 4 bytes each
    count = int.from_bytes(whole[at + 4 : at + 8], "big")
    entry = at + 8 + (count - 1) * 12
    duration, start = (int.from_bytes(whole[entry + o : entry + o + 4], "big") for o in (0, 4))
    cut = bytearray(whole)
    cut[entry : entry + 4] = (duration // 2).to_bytes(4, "big")
    cut[entry + 4 : entry + 8] = (start + TICKS).to_bytes(4, "big")
    source = open_video(bytes(cut), LIMITS)
    frames, _ = decode_all(source)
    assert len(frames) == source.count < 32


def test_all_frames_get_the_size_of_the_first_one() -> None:
    frames, times = decode_all(open_video(webm_that_grows(), LIMITS))
    assert [frame.shape for frame in frames] == [(64, 64, 3)] * 6
    assert [float(frame.mean()) for frame in frames] == pytest.approx([40 * i for i in range(6)], abs=6)
    assert [float(time) for time in times] == pytest.approx([i / 10 for i in range(6)], abs=1e-3)


@pytest.mark.parametrize(("degrees", "at"), [(90, 3), (180, 3), (270, 2), (90, 0)])
def test_a_video_that_turns_midway_keeps_the_size_of_its_first_frame(degrees: int, at: int) -> None:
    frames = pan(stranger(), 6, 96, 64)
    plain = encode_all(Mp4Encoder(Fraction(10), "ultrafast", 8), frames, Fraction(10))
    source = open_video(turned_midway(plain, at=at, degrees=degrees), LIMITS)
    decoded = np.concatenate([chunk.frames for chunk in source.chunks()])
    assert decoded.shape == ((6, 96, 64, 3) if at == 0 and degrees != 180 else (6, 64, 96, 3))
    for shown, frame in zip(decoded[at:], frames[at:], strict=True):
        upright = PIL.Image.fromarray(np.rot90(frame, degrees // 90)).resize(shown.shape[1::-1])
        opposite = np.rot90(np.asarray(upright), 2)
        assert np.abs(shown - np.asarray(upright, float)).mean() < np.abs(shown - opposite.astype(float)).mean() / 2


@pytest.mark.parametrize("pixels", [64 * 64, 128 * 128 - 1])
def test_a_frame_larger_than_the_header_says_is_refused(pixels: int) -> None:
    source = open_video(webm_that_grows(), dataclasses.replace(LIMITS, pixels=pixels))
    with pytest.raises(MediaError):
        decode_all(source)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_mp4_is_refused_instead_of_shortened(share: float) -> None:
    whole = clip(stranger())
    with pytest.raises(MediaError):
        list(open_video(whole[: int(len(whole) * share)], LIMITS).frames())


def test_a_truncated_webm_is_refused_at_every_tenth() -> None:
    whole = webm(pan(stranger(), 20, 96, 96))
    assert len(decode_all(open_video(whole, LIMITS))[0]) == 20
    for tenth in range(1, 10):
        with pytest.raises(MediaError):
            decode_all(open_video(whole[: len(whole) * tenth // 10], LIMITS))


def test_a_video_in_an_unknown_codec_is_refused() -> None:
    data = clip(stranger())
    with pytest.raises(MediaError, match="codec that is not supported; re-encode it"):
        open_video(data.replace(b"avc1", b"zzzz"), LIMITS)


def packet_positions(data: bytes) -> list[int]:
    """Return where in the file each packet of the video stream begins."""
    with av.open(io.BytesIO(data), mode="r") as container:
        return [packet.pos for packet in container.demux(video=0) if packet.size and packet.pos is not None]


@pytest.mark.parametrize("number", [3, 15])
def test_a_file_that_ends_between_two_frames_is_refused(number: int) -> None:
    """No packet is damaged; only the number of frames in the header shows that some are missing."""
    data = clip(stranger())
    with pytest.raises(MediaError, match=f"contains {number} of its 17 frames; send the complete file"):
        open_video(data[: packet_positions(data)[number]], LIMITS)


def test_a_frame_that_its_codec_marks_as_hidden_is_not_missed() -> None:
    data = webm(pan(stranger(), 8, 96, 96))
    with av.open(io.BytesIO(data), mode="r") as container:
        packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][3]
    hidden = bytes([packet[0] & ~0x10]) + packet[1:]  # VP8's flag for a frame that is shown
    source = open_video(data.replace(packet, hidden), LIMITS)
    assert source.count == len(decode_all(source)[0]) == 7


def test_a_webm_whose_packets_state_no_duration_lasts_as_long_as_its_frames() -> None:
    """Browsers record such files; the last frame is assumed to last as long as the others."""
    data = webm(pan(stranger(), 12, 64, 64))
    at = data.index(b"\x23\xe3\x83\x84")  # DefaultDuration, 8 bytes with its value
    without = data[:at] + b"\xec\x86" + bytes(6) + data[at + 8 :]  # replaced by a Void element
    source = open_video(without, LIMITS)
    assert source.count == 12
    assert float(source.duration) == pytest.approx(1.2)


def test_a_damaged_frame_is_refused_when_it_is_decoded() -> None:
    frames = pan(stranger(), 8, 96, 96)
    whole = encode_all(Mp4Encoder(Fraction(16), "veryfast", 18), frames, Fraction(16))
    start = whole.index(b"mdat") + 4
    damaged = whole[:start] + b"\xff" * (len(whole) - start)
    source = open_video(damaged, LIMITS)
    assert source.count == 8
    with pytest.raises(MediaError, match="damaged"):
        decode_all(source)


def test_audio_alone_is_refused() -> None:
    with pytest.raises(MediaError, match="contains no video; send"):
        open_video(tone(0.5), LIMITS)


def test_a_video_stream_without_frames_is_refused() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="webm") as container:
        video = container.add_stream("libvpx", rate=16)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        audio = container.add_stream("libopus", rate=48_000, layout="mono")
        frame = AudioFrame.from_ndarray(np.zeros((1, 9600), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux((*audio.encode(frame), *audio.encode(None)))
    with pytest.raises(MediaError, match="contains no video frames"):
        open_video(buffer.getvalue(), LIMITS)


def test_frames_are_counted_where_the_header_states_no_number() -> None:
    data = webm(pan(stranger(), 12, 64, 64))
    assert open_video(data, dataclasses.replace(LIMITS, frames=12)).count == 12
    with pytest.raises(MediaTooLarge, match="at least 12 frames; at most 11"):
        open_video(data, dataclasses.replace(LIMITS, frames=11))
