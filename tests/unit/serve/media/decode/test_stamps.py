"""Frames get the times of a file that states only when they are decoded, in order."""

import io
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest

from serve.media.decode.opening import open_source
from serve.media.decode.source import Source
from serve.media.decode.stamps import Stamps, has_codec_tag_of_avi, stamp_of
from tests.unit.serve.media.make_film import AnyPacket, encoded, numbered, remuxed
from tests.unit.serve.media.make_media import LIMITS, decode_all
from tests.unit.serve.media.make_vfw import REORDERED, in_vfw_mode

COUNT = 24
EVEN = [40 * i for i in range(COUNT)]
VARIABLE = [sum((20, 40, 60, 90)[k * k % 4] for k in range(i)) for i in range(COUNT)]


def order_of(source: Source) -> tuple[list[int], list[Fraction]]:
    """Return the numbers of the frames as they are shown, and their times."""
    frames, times = decode_all(source)
    assert source.damaged == 0
    assert source.count == len(frames)
    return [round(float(np.mean(frame)) / 10) for frame in frames], times


@pytest.mark.parametrize(("codec", "packed"), [("mpeg4", False), ("mpeg4", True), ("libx264", False)])
def test_matroska_in_the_mode_for_video_for_windows(codec: str, packed: bool) -> None:
    film = in_vfw_mode(codec, numbered(COUNT), EVEN, packed=packed)
    numbers, times = order_of(open_source(film, LIMITS))
    assert numbers == list(range(COUNT))
    assert times == [Fraction(time, 1000) for time in EVEN]


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_a_variable_rate_stays_in_the_mode_for_video_for_windows(codec: str) -> None:
    numbers, times = order_of(open_source(in_vfw_mode(codec, numbered(COUNT), VARIABLE), LIMITS))
    assert numbers == list(range(COUNT))
    shown = [time - VARIABLE[1] for time in VARIABLE[1:]]  # FFmpeg shows a frame when it decodes the next
    assert [1000 * time for time in times[:-1]] == shown


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
@pytest.mark.parametrize("container_format", ["mp4", "matroska"])
def test_a_file_whose_times_of_showing_are_those_of_decoding(codec: str, container_format: str) -> None:
    number = iter(range(COUNT))

    def as_decoded(_: int, packet: AnyPacket) -> AnyPacket:
        packet.pts = packet.dts = round(Fraction(next(number), 25) / packet.time_base)
        return packet

    whole = encoded(codec, container_format, numbered(COUNT), options=REORDERED[codec])
    numbers, times = order_of(open_source(remuxed(whole, container_format, as_decoded), LIMITS))
    assert numbers == list(range(COUNT))
    assert times == [Fraction(i, 25) for i in range(COUNT)]


def test_only_matroska_in_the_mode_for_video_for_windows_has_a_codec_tag() -> None:
    assert _has_tag(in_vfw_mode("mpeg4", numbered(3), EVEN[:3]))
    for container_format in ("matroska", "mp4"):
        assert not _has_tag(encoded("mpeg4", container_format, numbered(3)))


def _has_tag(film: bytes) -> bool:
    with av.open(io.BytesIO(film), mode="r") as container:
        return has_codec_tag_of_avi(container.streams.video[0])


def packet(pts: int | None, dts: int | None = None, *, is_keyframe: bool = False) -> Any:
    return SimpleNamespace(pts=pts, dts=dts, is_keyframe=is_keyframe)


def frame(pts: int | None, dts: int | None = None) -> Any:
    return SimpleNamespace(pts=pts, dts=dts, time_base=Fraction(1, 25))


def stamps(*added: tuple[int, bool], in_order: bool) -> Stamps:
    made = Stamps(in_order=in_order)
    for stamp, needed in added:
        made.add(packet(stamp), needed=needed)
    return made


def test_the_time_of_decoding_stands_for_one_of_showing_that_is_missing() -> None:
    assert [stamp_of(packet(3, 1)), stamp_of(packet(None, 1)), stamp_of(packet(0, 1)), stamp_of(packet(None))] == [
        3,
        1,
        0,
        None,
    ]


def test_a_frame_has_its_own_stamp_and_what_is_needed_before_it_is_missing() -> None:
    waiting = stamps((0, True), (3, True), (1, False), (2, True), (4, True), in_order=False)
    assert waiting.claim(frame(0)) == (0, [])
    assert waiting.claim(frame(None, 3)) == (3, [2])
    assert waiting.missing() == [4]
    assert waiting.claim(frame(None)) == (None, [])
    assert waiting.untimed
    assert waiting.claim(frame(3)) == (None, []), "it has come before"
    assert waiting.claim(frame(4)) == (4, [])


def test_a_further_part_begins_with_a_key_frame_that_steps_back() -> None:
    """Entries of an edit list repeat packets, and may begin with hidden ones."""
    waiting = Stamps(in_order=False)
    shown = [(0, True), (2, False), (1, False), (3, False)], [(2, True), (3, False), (5, False), (4, False)]
    begins = []
    for part in shown:
        for stamp, is_keyframe in part:
            begins.append(waiting.begins_part(packet(stamp, is_keyframe=is_keyframe)))
            if (stamp, is_keyframe) != (2, True):  # that one is hidden
                waiting.add(packet(stamp), needed=True)
    assert begins == [False] * 4 + [True] + [False] * 3
    claimed = [waiting.claim(frame(own)) for own in (0, 1, 3, 3, 4, 5)]
    assert claimed == [(0, []), (1, []), (3, [2]), (3, []), (4, []), (5, [])]
    assert waiting.missing() == []
    in_order = Stamps(in_order=True)
    assert not any(in_order.begins_part(packet(0, is_keyframe=True)) for _ in range(3))


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_films_that_were_joined_are_shown_one_after_the_other(codec: str) -> None:
    """Both count their time from its beginning."""
    film = encoded(codec, "matroska", numbered(COUNT), options=REORDERED[codec])
    frames, _ = decode_all(open_source(film + film, LIMITS))
    assert [round(float(np.mean(frame)) / 10) for frame in frames] == 2 * list(range(COUNT))


def test_a_frame_that_comes_after_it_was_missed_has_no_stamp() -> None:
    waiting = stamps((0, True), (2, True), (1, True), (3, True), in_order=False)
    assert [waiting.claim(frame(own)) for own in (0, 2, 1, 3)] == [(0, []), (2, [1]), (None, []), (3, [])]
    assert waiting.missing() == []


def test_stamps_in_order_do_not_depend_on_the_frame() -> None:
    waiting = stamps((0, True), (1, True), (2, True), (3, True), in_order=True)
    assert [waiting.claim(frame(own)) for own in (0, 2, 1)] == [(0, []), (1, []), (2, [])]
    assert waiting.missing() == [3]


def test_stamps_of_packets_that_the_decoder_refused_are_missing_in_order() -> None:
    waiting = stamps((0, True), (1, True), (2, False), (3, True), in_order=True)
    for refused in (1, 2):
        waiting.refuse(packet(refused))
    assert [waiting.claim(frame(None)), waiting.claim(frame(None))] == [(0, []), (3, [1])]


def test_a_frame_too_many_comes_right_after_the_last() -> None:
    waiting = stamps((7, True), in_order=True)
    assert [waiting.claim(frame(None)), waiting.claim(frame(None))] == [(7, []), (8, [])]


def test_packets_that_need_no_frame_give_their_stamps_only_where_no_other_waits() -> None:
    waiting = stamps((0, False), (1, False), (2, True), in_order=True)
    assert cast(Any, waiting.claim(frame(None))) == (2, [])
    assert stamps((0, False), in_order=True).claim(frame(None)) == (0, [])
