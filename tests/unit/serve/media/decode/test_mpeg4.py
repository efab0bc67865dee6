"""Packets of MPEG-4 that hold no picture are told from those that do."""

from fractions import Fraction

import pytest

from serve.media.decode.mpeg4 import EmptyPictures
from serve.media.decode.opening import open_source
from tests.unit.serve.media.make_film import AnyPacket, encoded, numbered, packets_of, remuxed
from tests.unit.serve.media.make_media import LIMITS, decode_all
from tests.unit.serve.media.make_vfw import PICTURE, QUALITY, empty_picture, replaced

FILM = encoded("mpeg4", "matroska", numbered(24), options=QUALITY)


def every_third_empty(number: int, packet: AnyPacket) -> AnyPacket:
    return packet if number % 3 < 2 else replaced(packet, empty_picture(bytes(packet)))


@pytest.mark.parametrize("container_format", ["mp4", "matroska"])
@pytest.mark.parametrize("count", [23, 24])
def test_the_frame_before_is_shown_for_longer_and_nothing_is_damaged(container_format: str, count: int) -> None:
    film = encoded("mpeg4", container_format, numbered(count), options=QUALITY)
    source = open_source(remuxed(film, container_format, every_third_empty), LIMITS)
    frames, times = decode_all(source)
    assert times == [Fraction(i, 25) for i in range(count) if i % 3 < 2]
    assert [round(frame.mean() / 10) for frame in frames] == [i for i in range(count) if i % 3 < 2]
    assert (source.damaged, source.count) == (0, len(frames))


def test_pictures_are_no_empty_ones_and_their_track_may_state_its_header_late() -> None:
    packets = packets_of(FILM)
    empty = EmptyPictures(b"")
    assert not empty.is_in(empty_picture(packets[1])), "the number of bits is not known yet"
    assert [empty.is_in(packet) for packet in packets] == [False] * 24
    assert empty.is_in(empty_picture(packets[1]))


def test_an_empty_picture_shows_the_second_one_of_an_earlier_packet() -> None:
    packets = packets_of(FILM)
    empty = EmptyPictures(packets[0])
    held = [empty.is_in(packet) for packet in (packets[1] + packets[2], *[empty_picture(packets[2])] * 2)]
    assert held == [False, False, True]


@pytest.mark.parametrize("payload", [b"", PICTURE, PICTURE + b"\xff" * 90, b"\0\0\1\x20", bytes(50)])
def test_damaged_packets_are_no_empty_ones(payload: bytes) -> None:
    assert not EmptyPictures(packets_of(FILM)[0]).is_in(payload + b"\xff")


def layer_header(bits: str) -> bytes:
    """Return a header of a track whose bits begin with these."""
    bits += "0" * (-len(bits) % 8)
    return b"\0\0\1\x20" + int(bits, 2).to_bytes(len(bits) // 8, "big")


RESOLUTION = "1" + f"{30_000:016b}" + "1"
HEADERS = {
    "plain": "0" + "00000001" + "0" + "0001" + "0" + "00" + RESOLUTION,
    "with a version": "0" + "00000001" + "1" + "0010" + "001" + "0001" + "0" + "00" + RESOLUTION,
    "with an aspect ratio of its own": "0" + "00000001" + "0" + "1111" + "0" * 16 + "0" + "00" + RESOLUTION,
    "with a buffer": "0" + "00000001" + "0" + "0001" + "1" + "0111" + "0" * 79 + "00" + RESOLUTION,
    "with control parameters": "0" + "00000001" + "0" + "0001" + "1" + "0110" + "00" + RESOLUTION,
    "in greyscale": "0" + "00000001" + "1" + "0010" + "001" + "0001" + "0" + "11" + "0000" + RESOLUTION,
}


@pytest.mark.parametrize("name", HEADERS)
def test_the_header_says_how_many_bits_a_time_has(name: str) -> None:
    """30,000 steps a second take 15 bits."""
    empty = EmptyPictures(layer_header(HEADERS[name]))
    for shown in (0, 1):
        bits = "01" + "110" + "1" + "0" * 15 + "1" + str(shown)
        picture = PICTURE + int(bits + "1" * (-len(bits) % 8), 2).to_bytes(3, "big")
        assert empty.is_in(picture) == (not shown)
