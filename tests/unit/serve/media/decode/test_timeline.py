"""The packets of a file say how many frames are shown, and when."""

import dataclasses
import io
import struct
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame

from serve.media.decode.opening import open_source
from serve.media.decode.source import SourceLimits
from serve.media.decode.timeline import Timeline, check_time, read_timeline
from serve.media.decode.video import open_video
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.samples import pan, stranger, tone
from tests.unit.serve.media.make_film import (
    H264_WITH_OPEN_GROUPS,
    AnyPacket,
    encoded,
    numbered,
    remuxed,
    with_edit,
)
from tests.unit.serve.media.make_media import (
    LIMITS,
    decode_all,
    reencode,
    webm,
)


def test_the_limit_of_frames_counts_those_that_are_shown() -> None:
    film = with_edit(encoded("libx264", "mp4", options=H264_WITH_OPEN_GROUPS), 0.4, 0.2)
    count = open_source(film, LIMITS).count
    assert open_source(film, SourceLimits(count, 20, 10**6)).count == count
    with pytest.raises(MediaTooLarge):
        open_source(film, SourceLimits(count - 1, 20, 10**6))


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


@pytest.mark.parametrize("stated_ms", [1, 20, 40, 80, 400])
def test_the_duration_that_a_webm_states_for_all_frames_may_be_wrong(stated_ms: int) -> None:
    data = encoded("libvpx", "webm", numbered(24))
    at = data.index(b"\x23\xe3\x83") + 3
    length = data[at] & 0x7F
    source = open_source(data[: at + 1] + (10**6 * stated_ms).to_bytes(length, "big") + data[at + 1 + length :], LIMITS)
    assert source.duration == Fraction(24, 25)
    assert source.fps == 25


def test_a_sample_of_no_bytes_shows_the_frame_before_for_longer() -> None:
    data = bytearray(encoded("mjpeg", "mov", numbered(24), pix_fmt="yuvj420p"))
    at = data.index(b"stsz") + 16 + 4 * 10
    before, size = struct.unpack_from(">II", data, at)
    struct.pack_into(">II", data, at, before + size, 0)
    source = open_source(bytes(data), LIMITS)
    frames, times = decode_all(source)
    assert (source.count, len(frames), source.damaged) == (23, 23, 0)
    assert times == [Fraction(i, 25) for i in range(24) if i != 11]
    assert source.duration == Fraction(24, 25)


def test_a_webm_whose_packets_state_no_duration_lasts_as_long_as_its_frames() -> None:
    """Browsers record such files; the last frame is assumed to last as long as the others."""
    data = webm(pan(stranger(), 12, 64, 64))
    at = data.index(b"\x23\xe3\x83\x84")  # DefaultDuration, 8 bytes with its value
    without = data[:at] + b"\xec\x86" + bytes(6) + data[at + 8 :]  # replaced by a Void element
    source = open_video(without, LIMITS)
    assert source.count == 12
    assert float(source.duration) == pytest.approx(1.2)


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


class Sent:
    """Packets of a file with a video track, 0, and a sound track, 1."""

    def __init__(self, *packets: Any) -> None:
        self._packets = packets

    def demux(self) -> Iterator[Any]:
        yield from self._packets


def sent(pts: int | None, *, key: bool = False, track: int = 0, **said: Any) -> Any:
    """Return a packet of 1/10 s, in which a unit of time is 1/10 s."""
    plain = {"dts": None, "duration": 1, "time_base": Fraction(1, 10), "is_discard": False, "is_corrupt": False}
    plain |= {"size": 1, "pos": None if pts is None else 100 + pts}
    return SimpleNamespace(pts=pts, is_keyframe=key, stream_index=track, **{**plain, **said})


def read(*packets: Any, frames: int = 100) -> Timeline:
    video = SimpleNamespace(index=0, codec_context=SimpleNamespace(name="h264", extradata=b""))
    container, audio = cast(Any, Sent(*packets)), cast(Any, SimpleNamespace(index=1))
    return read_timeline(container, cast(Any, video), audio, SourceLimits(frames, 20, 100))


def test_what_is_shown_is_counted_and_timed() -> None:
    line = read(sent(3, key=True), sent(5), sent(4), sent(6, is_discard=True), sent(9, track=1, duration=4))
    assert line.places == [(3, 103), (5, 105), (4, 104)]
    assert (line.count, line.first_start, line.last_start, line.last_end) == (
        3,
        Fraction(3, 10),
        Fraction(5, 10),
        Fraction(6, 10),
    )
    assert (line.audio_start, line.file_end) == (Fraction(9, 10), Fraction(13, 10))


def test_what_comes_before_the_first_key_frame_is_not_shown_unless_none_is_marked() -> None:
    assert (read(sent(0), sent(1), sent(2, key=True), sent(3)).first_start) == Fraction(2, 10)
    unmarked = read(sent(0), sent(1), sent(8, track=1))
    assert (unmarked.count, unmarked.first_start, unmarked.audio_start) == (2, Fraction(0), Fraction(8, 10))
    assert unmarked.file_end == Fraction(9, 10)


def test_a_packet_without_a_time_does_not_count_and_dts_stands_for_pts() -> None:
    line = read(sent(None), sent(None, dts=7, key=True), sent(8, time_base=None), sent(9, duration=None))
    assert (line.count, line.first_start, line.last_end) == (2, Fraction(7, 10), Fraction(9, 10))


def test_a_packet_that_is_cut_off_is_refused_unless_it_is_hidden() -> None:
    assert read(sent(0, key=True), sent(1, is_corrupt=True, is_discard=True)).count == 1
    for track in (0, 1):
        with pytest.raises(MediaError, match="truncated: its last part is missing"):
            read(sent(0, key=True), sent(1, is_corrupt=True, track=track))


def test_no_more_frames_than_allowed_are_counted() -> None:
    packets = [sent(0, key=True), sent(1), sent(2)]
    assert read(*packets, frames=3).count == 3
    with pytest.raises(MediaTooLarge):
        read(*packets, frames=2)
    with pytest.raises(MediaTooLarge):
        read(*(sent(number) for number in range(3)), frames=2)


def test_a_file_without_frames_is_refused() -> None:
    with pytest.raises(MediaError, match="contains no video frames; send MP4"):
        read(sent(0, track=1))


@pytest.mark.parametrize(
    ("sound", "starts"), [(None, 2), (Fraction(196, 100), 2), (Fraction(195, 100), Fraction(195, 100)), (3, 2)]
)
def test_sound_delays_the_clock_only_if_it_is_no_priming(sound: Fraction | None, starts: Fraction) -> None:
    assert Timeline(count=1, first_start=Fraction(2), audio_start=sound).clock_start == starts


@pytest.mark.parametrize(
    ("last_start", "last_end", "duration"),
    [
        (Fraction(9), Fraction(10), 8),
        (Fraction(9), Fraction(0), 8),
        (Fraction(9), Fraction(9), 8),
        (Fraction(2), Fraction(7), 5),
        (Fraction(2), Fraction(2), 1),
    ],
    ids=["stated", "no durations", "durations of 0", "one frame", "one frame without a duration"],
)
def test_the_duration_is_that_of_the_packets_where_they_state_it(
    last_start: Fraction, last_end: Fraction, duration: int
) -> None:
    line = Timeline(count=2, first_start=Fraction(2), last_start=last_start, last_end=last_end)
    assert line.duration(Fraction(1)) == duration


@pytest.mark.parametrize("time", [Fraction(10**7), Fraction(-(10**7)), Fraction(0)])
def test_a_time_up_to_the_latest_is_accepted(time: Fraction) -> None:
    assert check_time(time) == time
    if time:
        with pytest.raises(MediaError, match=r"timestamp of -?1e\+07 seconds; re-encode the video"):
            check_time(time * (1 + Fraction(1, 10**6)))
