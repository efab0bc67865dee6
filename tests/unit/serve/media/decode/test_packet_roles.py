"""The packets that a player shows are told from those that it does not."""

import io
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from serve.media.decode.opening import open_source
from serve.media.decode.packet_roles import PacketRoles, Role
from serve.media.decode.source import Source
from serve.media.decode.video import open_video
from serve.media.encode.mp4 import TICKS
from serve.media.samples import clip, pan, stranger
from tests.unit.serve.media.make_film import (
    H264_WITH_OPEN_GROUPS,
    cut_to_key_frame,
    encoded,
    packets_of,
    with_edit,
)
from tests.unit.serve.media.make_media import LIMITS, decode_all, webm


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


X265 = {"x265-params": "keyint=8:min-keyint=8:bframes=2:open-gop=1:log-level=none"}


@pytest.mark.parametrize(("codec", "options"), [("libx264", H264_WITH_OPEN_GROUPS), ("libx265", X265)])
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


@pytest.mark.parametrize(("start", "seconds"), [(0.0, 0.96), (0.2, 0.76), (0.4, 0.56), (0.0, 0.4), (0.4, 0.2), (0.0, 0.88)])
def test_an_edit_list_decides_what_is_shown(start: float, seconds: float) -> None:
    film = with_edit(encoded("libx264", "mp4", options=H264_WITH_OPEN_GROUPS), start, seconds)
    expected = shown_by_ffmpeg(film)
    assert abs(len(expected) - 25 * seconds) <= 1
    same(open_source(film, LIMITS), expected)


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


def test_a_frame_that_its_codec_marks_as_hidden_is_not_missed() -> None:
    data = webm(pan(stranger(), 8, 96, 96))
    with av.open(io.BytesIO(data), mode="r") as container:
        packet = [bytes(packet) for packet in container.demux(video=0) if packet.size][3]
    hidden = bytes([packet[0] & ~0x10]) + packet[1:]  # VP8's flag for a frame that is shown
    source = open_video(data.replace(packet, hidden), LIMITS)
    assert source.count == len(decode_all(source)[0]) == 7


def stream_of(codec: str, extradata: bytes = b"") -> Any:
    return SimpleNamespace(codec_context=SimpleNamespace(name=codec, extradata=extradata or None))


class Sent(bytes):
    """A packet with these bytes, and what its container says of it."""

    pts: int | None
    is_keyframe: bool
    is_discard: bool

    @property
    def size(self) -> int:
        return len(self)


def sent(pts: int | None, payload: bytes = b"\x10", *, key: bool = False, discard: bool = False) -> Any:
    made = Sent(payload)
    made.pts, made.is_keyframe, made.is_discard = pts, key, discard
    return made


HVCC = b"\x01" + bytes(20) + b"\x03" + bytes(8)
"""The head of HEVC's extradata that says that a length takes four bytes."""


def unit(kind: int) -> bytes:
    """Return a unit of HEVC's byte stream of this type, with its length before it."""
    return (3).to_bytes(4, "big") + bytes([kind << 1, 1, 0])


ROLES: dict[str, tuple[Any, list[tuple[Any, Role]]]] = {
    "nothing can be decoded before the first key frame": (
        stream_of("h264"),
        [(sent(0), Role.UNDECODABLE), (sent(1, key=True), Role.SHOWN), (sent(2), Role.SHOWN)],
    ),
    "pictures that lead the first key frame refer to what is not there": (
        stream_of("h264"),
        [(sent(5, key=True), Role.SHOWN), (sent(3), Role.UNDECODABLE), (sent(9, key=True), Role.SHOWN), (sent(7), Role.SHOWN)],
    ),
    "codecs without leading pictures have wrong time stamps": (
        stream_of("vp9"),
        [(sent(5, key=True), Role.SHOWN), (sent(3), Role.SHOWN)],
    ),
    "what an edit list discards is hidden, and still counts as the first key frame": (
        stream_of("h264"),
        [(sent(5, key=True, discard=True), Role.HIDDEN), (sent(6), Role.SHOWN), (sent(4), Role.UNDECODABLE)],
    ),
    "a bit of VP8 hides a frame": (
        stream_of("vp8"),
        [(sent(0, b"\x10", key=True), Role.SHOWN), (sent(1, b"\x01"), Role.HIDDEN), (sent(2, b""), Role.SHOWN)],
    ),
    "HEVC says whether a leading picture stands alone": (
        stream_of("hevc", HVCC),
        [
            (sent(5, unit(19), key=True), Role.SHOWN),
            (sent(2, unit(35) + unit(6)), Role.SHOWN),
            (sent(3, unit(35) + unit(8)), Role.UNDECODABLE),
            (sent(3, unit(9)), Role.UNDECODABLE),
            (sent(4, unit(35)), Role.UNDECODABLE),
            (sent(4, b"\0\0"), Role.UNDECODABLE),
        ],
    ),
    "a time stamp that is missing decides nothing": (
        stream_of("h264"),
        [(sent(None, key=True), Role.SHOWN), (sent(None), Role.SHOWN), (sent(3), Role.SHOWN)],
    ),
}


@pytest.mark.parametrize("case", ROLES)
def test_the_role_of_each_packet(case: str) -> None:
    stream, packets = ROLES[case]
    roles = PacketRoles(stream)
    assert [roles.of(packet) for packet, _ in packets] == [role for _, role in packets]
