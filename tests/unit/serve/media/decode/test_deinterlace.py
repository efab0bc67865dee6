"""Fields are woven into whole frames, and nothing else is changed."""

import io
from collections.abc import Iterable
from fractions import Fraction

import av
import numpy as np
import pytest
from av.filter import Graph
from av.video.frame import VideoFrame

from serve.media.decode.deinterlace import Deinterlacer
from serve.media.decode.opening import open_source
from tests.unit.serve.media.make_film import (
    SCENE,
    encoded,
)
from tests.unit.serve.media.make_media import LIMITS, decode_all


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


def field(level: int, *, woven: bool, side: int = 32, number: int = 0) -> VideoFrame:
    """Return a grey frame; one that is woven has rows of two levels in turn."""
    luma = np.full((side * 3 // 2, side), level, np.uint8)
    if woven:
        luma[1:side:2] += 60
    made = VideoFrame.from_ndarray(luma, format="yuv420p")
    made.pts, made.time_base = number, Fraction(1, 25)
    return as_fields(made) if woven else made


def as_fields(frame: VideoFrame) -> VideoFrame:
    """Return the frame with the mark that it is two fields, the upper one first."""
    graph = Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    graph.link_nodes(source, graph.add("setfield", mode="tff"), graph.add("buffersink")).configure()
    graph.push(frame)
    marked = graph.pull()
    assert isinstance(marked, VideoFrame)
    assert marked.interlaced_frame
    return marked


def passed(frames: Iterable[VideoFrame]) -> list[float]:
    return [float(one.time) for one in frames]


def test_frames_before_the_first_interlaced_one_pass_through_at_once() -> None:
    deinterlacer = Deinterlacer()
    plain = field(80, woven=False)
    (same,) = deinterlacer.filter(plain)
    assert same is plain
    assert list(deinterlacer.flush()) == []


def test_one_frame_is_held_from_the_first_interlaced_one_on_and_none_is_lost() -> None:
    deinterlacer = Deinterlacer()
    counts = [len(list(deinterlacer.filter(field(80, woven=number == 1, number=number)))) for number in range(5)]
    assert counts == [1, 0, 1, 1, 1]
    assert passed(deinterlacer.flush()) == [4 / 25]
    assert list(deinterlacer.flush()) == [], "nothing is held twice"


def test_times_stay_and_so_do_frames_that_are_not_interlaced() -> None:
    """They are noise, of which the filter would leave nothing as it is."""
    rng = np.random.default_rng(1)
    deinterlacer = Deinterlacer()
    frames = [field(80, woven=number in (1, 2), number=number) for number in range(5)]
    for number in (0, 3, 4):
        frames[number] = VideoFrame.from_ndarray(rng.integers(0, 255, (48, 32), np.uint8), format="yuv420p")
        frames[number].pts, frames[number].time_base = number, Fraction(1, 25)
    whole = [one for given in frames for one in deinterlacer.filter(given)] + list(deinterlacer.flush())
    assert passed(whole) == [number / 25 for number in range(5)]
    assert not any(one.interlaced_frame for one in whole)
    for number in (0, 3, 4):
        np.testing.assert_array_equal(whole[number].to_ndarray(), frames[number].to_ndarray())


def test_a_frame_of_another_size_ends_what_was_held_before_it() -> None:
    deinterlacer = Deinterlacer()
    assert list(deinterlacer.filter(field(80, woven=True))) == []
    larger = field(80, woven=False, side=64, number=1)
    held, same = deinterlacer.filter(larger)
    assert (held.width, held.time) == (32, 0)
    assert same is larger
    assert list(deinterlacer.filter(field(80, woven=True, side=64, number=2))) == []
    assert [one.width for one in deinterlacer.flush()] == [64]
