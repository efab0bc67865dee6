"""What is damaged between the frames of a Matroska film is counted, and held or refused."""

import io
from collections.abc import Callable

import av
import pytest

from serve.media.decode.holes import lost_stamps
from serve.media.decode.opening import open_source
from serve.media.errors import MediaError
from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_elements import CLUSTER, HEADER, SEGMENT, element
from tests.unit.serve.media.make_film import AnyPacket, encoded, remuxed
from tests.unit.serve.media.make_media import LIMITS, decode_all

COUNT = 60
FILM = encoded("libvpx", "webm", pan(stranger(), COUNT, 96, 64), options={"g": "12", "deadline": "realtime", "cpu-used": "8"})
"""Clusters of 12 frames."""


def spoilt(film: bytes, number: int, fill: int = 0) -> bytes:
    """Return the film with the block of one frame overwritten, its head included."""
    with av.open(io.BytesIO(film), mode="r") as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        place, size = packets[number].pos, packets[number].size
    assert place is not None
    return film[:place] + bytes([fill]) * size + film[place + size :]


@pytest.mark.parametrize("fill", [0, 255])
@pytest.mark.parametrize(("number", "lost"), [(46, 2), (47, 1), (58, 2), (59, 1)])
def test_what_ffmpeg_skips_to_the_next_cluster_is_held_and_counted(number: int, lost: int, fill: int) -> None:
    source = open_source(spoilt(FILM, number, fill), LIMITS)
    frames, times = decode_all(source)
    whole = open_source(FILM, LIMITS)
    assert (source.count, len(frames), source.damaged) == (COUNT, COUNT, lost)
    assert max(abs(one - other) for one, other in zip(times, decode_all(whole)[1], strict=True)) <= 0.001
    assert abs(source.duration - whole.duration) <= 0.002
    for held in frames[number : number + lost]:
        assert (held == frames[number - 1]).all()


@pytest.mark.parametrize("number", [25, 50])
def test_a_film_of_which_too_much_is_lost_is_refused_before_it_is_decoded(number: int) -> None:
    with pytest.raises(MediaError, match=f"more than 5% of its {COUNT} frames cannot be decoded"):
        open_source(spoilt(FILM, number), LIMITS)


def test_a_film_that_rests_is_not_damaged() -> None:
    def paused(number: int, packet: AnyPacket) -> AnyPacket:
        assert packet.pts is not None
        packet.pts = packet.dts = packet.pts + (0 if number < 30 else 700)
        return packet

    source = open_source(remuxed(FILM, "webm", paused), LIMITS)
    frames, _ = decode_all(source)
    assert (source.count, len(frames), source.damaged) == (COUNT, COUNT, 0)


BLOCK = element(b"\xa3", b"\x81\0\0\x80....")
TRACKS = element(b"\x16\x54\xae\x6b", element(b"\xae", element(b"\xd7", b"\x01")))
START = len(element(HEADER)) + len(element(SEGMENT)) + len(TRACKS) + len(element(CLUSTER))
BROKEN: dict[str, tuple[Callable[[bytes], bytes], bool]] = {
    "nothing is damaged": (lambda block: block, False),
    "a block without a track": (lambda block: block[:9] + bytes(8), True),
    "a block of no track": (lambda block: block[:9] + b"\xff" * 8, True),
    "no element": (lambda block: bytes(len(block)), True),
    "an unknown element": (lambda block: b"\xee" + block[1:], False),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_step_in_the_time_stamps_is_a_loss_where_the_cluster_is_damaged(case: str) -> None:
    change, is_damaged = BROKEN[case]
    data = element(HEADER) + element(SEGMENT, TRACKS + element(CLUSTER, 3 * BLOCK + change(BLOCK) + BLOCK))
    places = [(10 * number, START + number * len(BLOCK)) for number in (0, 1, 2, 4)]
    assert lost_stamps(data, places, 50) == ([30] if is_damaged else [])


def test_only_so_many_elements_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    data = element(HEADER) + element(SEGMENT, TRACKS + element(CLUSTER, 3 * BLOCK + bytes(len(BLOCK)) + BLOCK))
    places = [(10 * number, START + number * len(BLOCK)) for number in (0, 1, 2, 4)]
    for most, lost in ((3, [30]), (2, [])):
        monkeypatch.setattr("serve.media.decode.holes._MOST_ELEMENTS", most)
        assert lost_stamps(data, places, 50) == lost


def test_a_film_of_one_frame_or_without_a_segment_has_lost_none() -> None:
    assert lost_stamps(b"", [(0, 0)], 1000) == []
    assert lost_stamps(b"", [(0, 0), (10, 5), (20, 10)], 1000) == []
