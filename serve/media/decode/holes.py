"""Holes in WebM and Matroska files: what is damaged there between the frames.

FFmpeg skips what it cannot read of a cluster to the next one, and says nothing of it. So the frames
that are missing there show only as a step in the time stamps, as a film of a variable rate has it.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import pairwise
from statistics import median_low
from typing import BinaryIO

from serve.media.decode.elements import UNKNOWN, elements, segment_of
from serve.media.spool import Media, media_size, open_media

Place = tuple[int, int]
"""The time stamp of a packet, and where it stands in the file."""
_CLUSTER, _SIMPLE_BLOCK, _BLOCK_GROUP = b"\x1f\x43\xb6\x75", b"\xa3", b"\xa0"
_TRACKS, _NUMBER = b"\x16\x54\xae\x6b", b"\xd7"
_MOST_ELEMENTS = 300_000
"""How many elements in clusters are looked at: those of more than half an hour."""
_LONG_STEP = 1.5
"""How many usual steps one must take for a frame to be missing."""


def lost_stamps(data: Media, places: Sequence[Place], end: int) -> list[int]:
    """Return the time stamps of the frames that are missing beside holes in ``data``.

    ``places`` are those of the frames that can be read, and ``end`` is the time stamp at which the
    film ends.
    """
    ordered = sorted(places)
    steps = [after - before for (before, _), (after, _) in pairwise(ordered) if after > before]
    if not steps:
        return []
    step = median_low(steps)
    last = max(position for _, position in ordered)
    edges = [*pairwise(ordered), (ordered[-1], (end, media_size(data)))]
    gaps = [(one, other) for one, other in edges if other[0] - one[0] > _LONG_STEP * step]
    lost: list[int] = []
    if not gaps:
        return lost
    holes = _holes(data)
    for (before, start), (after, stop) in gaps:
        begins, stops = min(start, stop), max(start, stop)
        if after == end:
            begins = last
        if any(begins <= hole <= stops for hole in holes):
            count = round((after - before) / step) - 1
            lost += [before + (after - before) * k // (count + 1) for k in range(1, count + 1)]
    return lost


def _holes(data: Media) -> list[int]:
    """Return where in each cluster something stands that is no block of a track."""
    size = media_size(data)
    with open_media(data) as file:
        segment = segment_of(file, size)
        if segment is None:
            return []
        _, at, length = segment
        end = size if length == UNKNOWN else min(size, at + length)
        tracks = _numbers_of_tracks(file, at, end)
        clusters = [(start, length) for name, start, length in elements(file, at, end) if name == _CLUSTER]
        budget = iter(range(_MOST_ELEMENTS))
        found = [
            _hole(file, start, end if length == UNKNOWN else start + length, tracks=tracks, budget=budget)
            for start, length in clusters
        ]
    return [hole for hole in found if hole is not None]


def _numbers_of_tracks(file: BinaryIO, start: int, end: int) -> set[int]:
    """Return the numbers of all tracks that fit into one byte."""
    numbers = set()
    for name, at, length in elements(file, start, end):
        if name != _TRACKS:
            continue
        for _, entry, entry_length in elements(file, at, at + length):
            for kind, number_at, number_length in elements(file, entry, entry + entry_length):
                if kind == _NUMBER and 0 < number_length <= 8:
                    file.seek(number_at)
                    numbers.add(int.from_bytes(file.read(number_length), "big"))
        break
    return numbers


def _hole(file: BinaryIO, start: int, end: int, *, tracks: Collection[int], budget: Iterator[int]) -> int | None:
    """Return where in a cluster the first thing stands that is no block of one of ``tracks``.

    It is None if there is none among as many elements as ``budget`` yields.
    """
    reached = start
    for name, at, length in elements(file, start, end):
        if next(budget, None) is None:
            return None
        if length == UNKNOWN or name == _CLUSTER:  # a cluster without a length ends where the next one begins
            return None
        file.seek(at)
        first = file.read(1)
        is_short = first >= b"\x80"
        if name == _SIMPLE_BLOCK and is_short and first[0] & 0x7F not in tracks:
            return at
        if name in (_SIMPLE_BLOCK, _BLOCK_GROUP) and first in (b"", b"\0"):
            return at
        reached = at + length
    return None if reached >= end else reached
