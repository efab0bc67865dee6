"""What a player shows of a file is what is decoded, whatever its container counts."""

import io
import itertools
from collections.abc import Callable
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from serve.media.decode.opening import open_source
from serve.media.decode.source import Source, SourceLimits
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.samples import tone
from tests.unit.serve.media.make_film import (
    SCENE,
    AnyPacket,
    cut_to_key_frame,
    encoded,
    numbered,
    packets_of,
    remuxed,
    with_edit,
    with_matrix,
    without,
)
from tests.unit.serve.media.make_media import LIMITS, decode_all, reencode, webm

X264 = {"x264-params": "keyint=8:min-keyint=8:scenecut=0:bframes=2:open-gop=1"}
X265 = {"x265-params": "keyint=8:min-keyint=8:bframes=2:open-gop=1:log-level=none"}


def shown_by_ffmpeg(data: bytes) -> list[np.ndarray]:
    with av.open(io.BytesIO(data), mode="r") as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def same(source: Source, expected: list[np.ndarray]) -> None:
    """Check that the frames are the expected ones, and that they were counted right beforehand."""
    frames, times = decode_all(source)
    assert source.count == len(frames) == len(expected)
    assert source.fps == 25
    assert [time - times[0] for time in times] == pytest.approx([i / 25 for i in range(len(times))], abs=1e-3)
    for frame, other in zip(frames, expected, strict=True):
        assert np.abs(frame.astype(int) - other).mean() < 2


# Open groups of pictures


@pytest.mark.parametrize(("codec", "options"), [("libx264", X264), ("libx265", X265)])
@pytest.mark.parametrize("container_format", ["mp4", "matroska"])
def test_a_film_that_was_cut_at_an_open_group_of_pictures(codec: str, options: dict[str, str], container_format: str) -> None:
    whole = encoded(codec, "matroska", options=options)
    cut = cut_to_key_frame(whole, container_format, 1)
    expected = shown_by_ffmpeg(cut)
    assert len(expected) < len(packets_of(cut)), "the group of pictures is not open"
    same(open_source(cut, LIMITS), expected)


def test_pictures_that_lead_but_can_be_decoded_are_shown() -> None:
    options = {"x265-params": "keyint=8:min-keyint=8:bframes=3:radl=2:log-level=none"}
    cut = cut_to_key_frame(encoded("libx265", "matroska", options=options), "matroska", 1)
    same(open_source(cut, LIMITS), shown_by_ffmpeg(cut))


# Edit lists


@pytest.mark.parametrize(("start", "seconds"), [(0.0, 0.96), (0.2, 0.76), (0.4, 0.56), (0.0, 0.4), (0.4, 0.2), (0.0, 0.88)])
def test_an_edit_list_decides_what_is_shown(start: float, seconds: float) -> None:
    film = with_edit(encoded("libx264", "mp4", options=X264), start, seconds)
    expected = shown_by_ffmpeg(film)
    assert abs(len(expected) - 25 * seconds) <= 1
    same(open_source(film, LIMITS), expected)


def test_the_limit_of_frames_counts_those_that_are_shown() -> None:
    film = with_edit(encoded("libx264", "mp4", options=X264), 0.4, 0.2)
    count = open_source(film, LIMITS).count
    assert open_source(film, SourceLimits(count, 20, 10**6)).count == count
    with pytest.raises(MediaTooLarge):
        open_source(film, SourceLimits(count - 1, 20, 10**6))


# Truncated files


@pytest.mark.parametrize("container_format", ["mp4", "matroska", "webm", "mov"])
@pytest.mark.parametrize("share", [0.3, 0.5, 0.8, 0.95])
def test_a_file_whose_end_is_missing_is_still_refused(container_format: str, share: float) -> None:
    whole = encoded("libvpx" if container_format == "webm" else "libx264", container_format, audio=container_format != "webm")
    open_source(whole, LIMITS)
    with pytest.raises(MediaError):
        open_source(whole[: int(share * len(whole))], LIMITS)


def test_a_fragmented_file_whose_end_is_missing_is_still_refused() -> None:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx264", rate=25, options=X264)
        stream.height, stream.width = SCENE.shape[1:3]
        for pixels in SCENE:
            container.mux(stream.encode(VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    whole = buffer.getvalue()
    end = whole.rindex(b"mfra") - 4
    assert open_source(whole, LIMITS).count == open_source(whole[:end], LIMITS).count == 24
    for missing in (1, 100, 600):
        with pytest.raises(MediaError, match="truncated"):
            open_source(whole[: end - missing], LIMITS)


# The clock


@pytest.mark.parametrize(("container_format", "codec"), [("matroska", "libx264"), ("webm", "libvpx")])
def test_a_file_whose_clock_does_not_start_at_0(container_format: str, codec: str) -> None:
    def late(_: int, packet: AnyPacket) -> AnyPacket:
        assert packet.pts is not None
        shift = round(60 / packet.time_base)
        packet.pts += shift
        packet.dts = None if packet.dts is None else packet.dts + shift
        return packet

    plain = encoded(codec, container_format, numbered(12))
    source = open_source(remuxed(plain, container_format, late), LIMITS)
    _, times = decode_all(source)
    assert times == decode_all(open_source(plain, LIMITS))[1]
    assert times[0] == 0
    assert source.fps == 25


@pytest.mark.parametrize("shift", [0, 3600])
def test_sound_stays_in_step_when_the_clock_is_set_to_0(shift: int) -> None:
    """A tone begins 0.2 s after the picture, and 0.2 s after it must begin in the result."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container, av.open(io.BytesIO(tone(0.5)), mode="r") as sound:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 64
        audio = container.add_stream_from_template(sound.streams.audio[0])
        for i, pixels in enumerate(numbered(12)):
            frame = VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i + 25 * shift, Fraction(1, 25)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for packet in sound.demux(audio=0):
            if packet.dts is not None:
                for name in ("pts", "dts"):
                    setattr(packet, name, getattr(packet, name) + round((shift + 0.2) / packet.time_base))
                packet.stream = audio
                container.mux(packet)
    result = reencode(open_source(buffer.getvalue(), LIMITS)).read()
    with av.open(io.BytesIO(result), mode="r") as container:
        starts = {s.type: float((s.start_time or 0) * (s.time_base or 0)) for s in container.streams}
    assert starts["video"] == pytest.approx(0, abs=1e-3)
    assert starts["audio"] == pytest.approx(0.2, abs=0.03)


def test_a_gap_before_the_picture_counts_for_the_limit() -> None:
    """Sound that begins long before the first frame would make a long file of few frames."""
    sound = av.open(io.BytesIO(tone(0.3)), mode="r")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="matroska") as container:
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 64
        audio = container.add_stream_from_template(sound.streams.audio[0])
        for packet in sound.demux(audio=0):
            if packet.dts is not None:
                packet.stream = audio
                container.mux(packet)
        frame = VideoFrame.from_ndarray(numbered(1)[0], format="rgb24")
        frame.pts, frame.time_base = 25 * 90, Fraction(1, 25)
        container.mux(video.encode(frame))
        container.mux(video.encode())
    with pytest.raises(MediaTooLarge, match="lasts 90"):
        open_source(buffer.getvalue(), LIMITS)


# Damage in the middle


@pytest.mark.parametrize(("codec", "container_format"), [("libx264", "mp4"), ("libx265", "matroska"), ("libvpx-vp9", "webm")])
@pytest.mark.parametrize("fill", [0, 255])
def test_the_last_good_frame_is_held_where_one_is_damaged(codec: str, container_format: str, fill: int) -> None:
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    whole = encoded(codec, container_format, options=options)
    source = open_source(without(whole, 12, fill=fill), LIMITS)
    frames, times = decode_all(source)
    assert len(frames) == source.count == 24
    assert source.damaged == 1
    assert times == decode_all(open_source(whole, LIMITS))[1]
    held = [(one == other).all() for one, other in itertools.pairwise(frames)]
    assert held.count(True) == 1


def test_a_film_of_which_more_than_a_twentieth_is_damaged_is_refused() -> None:
    whole = encoded("libx264", "mp4", numbered(24), options={"x264-params": "keyint=1"})
    decode_all(open_source(without(whole, 9), LIMITS))
    with pytest.raises(MediaError, match="more than 5% of its 24 frames cannot be decoded"):
        decode_all(open_source(without(whole, 9, 17), LIMITS))


def test_a_damaged_first_frame_is_replaced_by_the_next() -> None:
    whole = encoded("mjpeg", "mov", numbered(25), pix_fmt="yuvj420p")
    source = open_source(without(whole, 0), LIMITS)
    frames, times = decode_all(source)
    assert (len(frames), source.damaged) == (25, 1)
    assert times[0] == 0
    np.testing.assert_array_equal(frames[0], frames[1])


# Times


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


# Geometry


MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "plain": ((1, 0, 0, 1), lambda x: x),
    "a quarter turn": ((0, 1, -1, 0), lambda x: np.rot90(x, -1)),
    "half a turn": ((-1, 0, 0, -1), lambda x: np.rot90(x, 2)),
    "three quarters": ((0, -1, 1, 0), lambda x: np.rot90(x, 1)),
    "left to right": ((-1, 0, 0, 1), lambda x: x[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda x: x[::-1]),
    "transposed": ((0, 1, 1, 0), lambda x: x.transpose(1, 0, 2)),
    "along the other diagonal": ((0, -1, -1, 0), lambda x: np.rot90(x, 2).transpose(1, 0, 2)),
}


@pytest.mark.parametrize("name", MATRICES)
def test_a_display_matrix_turns_and_mirrors(name: str) -> None:
    matrix, show = MATRICES[name]
    film = encoded("libx264", "mp4", SCENE[:2])
    (stored, _), _ = decode_all(open_source(film, LIMITS))
    (frame, _), _ = decode_all(open_source(with_matrix(film, *matrix), LIMITS))
    np.testing.assert_array_equal(frame, show(stored))


@pytest.mark.parametrize("container_format", ["mp4", "matroska"])
@pytest.mark.parametrize(
    ("aspect", "size"),
    [(Fraction(4, 3), (128, 64)), (Fraction(1, 2), (96, 128)), (Fraction(1), (96, 64)), (Fraction(64, 45), (137, 64))],
)
def test_pixels_become_square(container_format: str, aspect: Fraction, size: tuple[int, int]) -> None:
    film = encoded(
        "libx264",
        container_format,
        SCENE[:2],
        prepare=lambda stream: setattr(stream.codec_context, "sample_aspect_ratio", aspect),
    )
    source = open_source(film, LIMITS)
    frames, _ = decode_all(source)
    assert frames[0].shape[1::-1] == size
    assert source.pixels >= size[0] * size[1]
    source = open_source(film, SourceLimits(100, 20, 96 * 64))
    limited = decode_all(source)[0][0]
    assert limited.shape[0] * limited.shape[1] <= 96 * 64
    assert limited.shape[1] / limited.shape[0] == pytest.approx(size[0] / size[1], rel=0.03)
    turned = decode_all(open_source(with_matrix(film, 0, 1, -1, 0), LIMITS))[0][0] if container_format == "mp4" else None
    assert turned is None or turned.shape[:2] == size


# Transparency, fields


@pytest.mark.parametrize(
    ("codec", "container_format", "pix_fmt"),
    [("libvpx-vp9", "webm", "yuva420p"), ("libvpx", "webm", "yuva420p"), ("png", "mov", "rgba"), ("qtrle", "mov", "argb")],
)
def test_a_transparent_film_lies_on_white(codec: str, container_format: str, pix_fmt: str) -> None:
    rgba = np.zeros((4, 64, 64, 4), np.uint8)
    rgba[...] = (255, 0, 255, 0)
    rgba[:, 20:44, 20:44] = (40, 120, 60, 255)
    film = encoded(codec, container_format, rgba, source_format="rgba", pix_fmt=pix_fmt, options={"auto-alt-ref": "0"})
    if container_format == "webm":  # the mark that browsers want; PyAV cannot write it
        assert b"\x53\xc0\x81\x01" in film
    frames, _ = decode_all(open_source(film, LIMITS))
    assert len(frames) == 4
    for frame in frames:
        assert frame[:12, :12].min() > 250
        assert np.abs(frame[26:38, 26:38].astype(int) - (40, 120, 60)).mean() < 12


def test_fields_are_woven_into_whole_frames() -> None:
    wide = np.asarray(SCENE[0]).repeat(2, 1)
    moving = np.stack([wide[:, 4 * i : 4 * i + 96] for i in range(24)])
    woven = moving[::2].copy()
    woven[:, 1::2] = moving[1::2, 1::2]

    def interlaced(stream: av.VideoStream) -> None:
        stream.codec_context.flags |= 0x20000000 | 0x40000

    film = encoded("libx264", "mp4", woven, options={"x264-params": "tff=1", "crf": "8"}, prepare=interlaced)
    with av.open(io.BytesIO(film), mode="r") as container:
        assert next(container.decode(video=0)).interlaced_frame
    source = open_source(film, LIMITS)
    frames, times = decode_all(source)
    assert len(frames) == source.count == 12
    assert [float(time) for time in times] == pytest.approx([i / 25 for i in range(12)], abs=1e-4)
    combed = [np.abs(f[1:-1].astype(int) - (f[:-2].astype(int) + f[2:]) / 2).mean() for f in woven]
    smooth = [np.abs(f[1:-1].astype(int) - (f[:-2].astype(int) + f[2:]) / 2).mean() for f in frames]
    assert np.mean(smooth) < 0.6 * np.mean(combed)
