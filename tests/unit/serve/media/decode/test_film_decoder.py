"""Where frames of a film are damaged, good ones are shown, and never too many."""

import io
import itertools
from collections.abc import Iterator
from fractions import Fraction
from types import SimpleNamespace
from typing import Any, cast

import av
import numpy as np
import pytest

from serve.media.decode.film_decoder import MOST_DAMAGED, FilmDecoder
from serve.media.decode.opening import open_source
from serve.media.decode.stamps import Stamps
from serve.media.decode.video import open_video
from serve.media.encode.mp4 import Mp4Encoder
from serve.media.errors import MediaError
from serve.media.samples import pan, stranger
from tests.unit.serve.media.make_film import (
    encoded,
    numbered,
    packets_of,
    without,
)
from tests.unit.serve.media.make_media import LIMITS, decode_all, encode_all


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


def test_a_damaged_frame_is_refused_when_it_is_decoded() -> None:
    frames = pan(stranger(), 8, 96, 96)
    whole = encode_all(Mp4Encoder(Fraction(16), "veryfast", 18), frames, Fraction(16))
    start = whole.index(b"mdat") + 4
    damaged = whole[:start] + b"\xff" * (len(whole) - start)
    source = open_video(damaged, LIMITS)
    assert source.count == 8
    with pytest.raises(MediaError, match="damaged"):
        decode_all(source)


def test_a_frame_that_its_decoder_kept_back_for_too_long_is_not_shown() -> None:
    """FFmpeg's decoder of MPEG-2 shows a frame once the next one that is no B-frame has come."""
    whole = encoded("mpeg2video", "mp4", pan(stranger(), 48, 96, 64), options={"bf": "2", "g": "24"})
    spoilt = without(whole, 7)
    with av.open(io.BytesIO(spoilt), mode="r") as container:
        decoded = [frame.pts for frame in container.decode(video=0)]
    assert decoded != sorted(decoded, key=lambda stamp: stamp or 0)
    source = open_source(spoilt, LIMITS)
    _, times = decode_all(source)
    assert times == decode_all(open_source(whole, LIMITS))[1]
    assert source.damaged == 2


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_first_frame_of_which_only_a_part_is_damaged_is_replaced_by_the_next(codec: str) -> None:
    """Decoders fill what they cannot read with something, and mark the frame as corrupt."""
    whole = encoded(codec, "mp4")
    first = packets_of(whole)[0]
    spoilt = whole.replace(first, first[: len(first) // 2] + b"\x55" * (len(first) - len(first) // 2))
    with av.open(io.BytesIO(spoilt), mode="r") as container:
        assert next(container.decode(video=0)).is_corrupt
    source = open_source(spoilt, LIMITS)
    frames, times = decode_all(source)
    assert (len(frames), source.damaged) == (24, 1)
    assert times == decode_all(open_source(whole, LIMITS))[1]
    np.testing.assert_array_equal(frames[0], frames[1])


class Scripted:
    """A container and the decoder of its track: each packet is the list of frames that it yields.

    ``None`` stands for a packet that the decoder refuses.
    """

    def __init__(self, *packets: list[Any] | None) -> None:
        self._packets = packets

    def demux(self, _: object) -> Iterator[Any]:
        for number, frames in enumerate(self._packets):
            yield SimpleNamespace(size=1, pts=number, dts=number, is_keyframe=not number, is_discard=False, frames=frames)

    def decode(self, packet: Any) -> list[Any]:
        if packet.frames is None:
            raise av.error.InvalidDataError(1, "damaged")
        return cast(list[Any], packet.frames)


def frame(stamp: int | None, *, corrupt: bool = False, dts: int | None = None) -> Any:
    return SimpleNamespace(pts=stamp, dts=dts, time_base=Fraction(1, 25), is_corrupt=corrupt, number=stamp)


def shown(script: Scripted, count: int, monkeypatch: pytest.MonkeyPatch) -> tuple[list[tuple[int, int]], int]:
    """Return which frame is shown at which time stamp, and how many are damaged."""
    monkeypatch.setattr("serve.media.decode.film_decoder._open_decoder", lambda *_: script)
    stream = SimpleNamespace(codec_context=SimpleNamespace(name="h264", extradata=b""))
    decoder = FilmDecoder(cast(Any, script), cast(Any, stream), count=count, max_pixels=100, stamps=Stamps(in_order=False))
    return [(cast(Any, one).number, cast(int, one.pts)) for one in decoder.frames()], decoder.damaged


@pytest.mark.parametrize(
    ("packets", "expected", "damaged"),
    [
        ([[frame(0)], [frame(1)], [frame(2)]], [(0, 0), (1, 1), (2, 2)], 0),
        ([[frame(0)], None, None, [frame(3)]], [(0, 0), (0, 1), (0, 2), (3, 3)], 2),
        ([[frame(0)], [frame(1, corrupt=True)], [frame(2)]], [(0, 0), (0, 1), (2, 2)], 1),
        ([None, [frame(1, corrupt=True)], None, [frame(3)]], [(3, 0), (3, 1), (3, 2), (3, 3)], 3),
        ([[frame(0)], [], [frame(1), frame(2)]], [(0, 0), (1, 1), (2, 2)], 0),
        ([[frame(0)], None, [frame(2)], None], [(0, 0), (0, 1), (2, 2), (2, 3)], 2),
        ([[frame(0)], [frame(None, dts=1)]], [(0, 0), (None, 1)], 0),
        ([[frame(0)], None, [frame(2)], [frame(1)], [frame(4)]], [(0, 0), (0, 1), (2, 2), (2, 3), (4, 4)], 2),
    ],
    ids=["all good", "two refused", "a corrupt one", "damaged beginning", "a late frame", "damaged end", "no pts", "too late"],
)
def test_every_time_stamp_shows_a_good_frame(
    packets: list[list[Any] | None], expected: list[tuple[int, int]], damaged: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown(Scripted(*packets), 100, monkeypatch) == (expected, damaged)


@pytest.mark.parametrize("packets", [[None, None], [[frame(0, corrupt=True)], [frame(1, corrupt=True)]]])
def test_a_film_without_a_good_frame_is_refused(packets: list[list[Any] | None], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="none of its frames can be decoded; send the complete file"):
        shown(Scripted(*packets), 100, monkeypatch)


def test_a_frame_without_a_time_stamp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MediaError, match="have no timestamps; re-encode"):
        shown(Scripted([frame(None)]), 100, monkeypatch)


@pytest.mark.parametrize("refused", [1, 2])
def test_the_limit_of_damaged_frames_is_inclusive(refused: int, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = [[frame(0)], *([None] * refused), [frame(1 + refused)]]
    if refused > MOST_DAMAGED * 20:
        with pytest.raises(MediaError, match="more than 5% of its 20 frames"):
            shown(Scripted(*packets), 20, monkeypatch)
    else:
        assert shown(Scripted(*packets), 20, monkeypatch)[1] == refused
