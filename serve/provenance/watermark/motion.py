"""Reads a frame of a film in which the pattern has moved with the picture.

Video codecs predict most of a frame from others, with the pattern that those have. Where a film
pans or zooms, a frame therefore shows the pattern several times, each time moved and scaled as the
picture was, and each of them weakly. Here they are found and added up.
"""

import math
from collections.abc import Iterable, Sequence
from itertools import combinations, product

import cv2
import numpy as np
import numpy.typing as npt

from serve.provenance.watermark.bound import rate_of
from serve.provenance.watermark.code import decode, decode_closely, encode
from serve.provenance.watermark.pattern import Pattern, Tile
from serve.provenance.watermark.payload import Bits, Payload
from serve.provenance.watermark.residual import COMPRESSED, Plane, correlate, fold, resample, residual
from serve.provenance.watermark.tile import PER_CELL, SIDE, cells_at, matched, template_of

SCALES = tuple(round(1 + step * 0.0025, 4) for step in range(-19, 25))
"""The sizes of the pattern that are looked for, as parts of that which frames are marked with."""
_UNSCALED = SCALES.index(1)
_SINGLE = 1200
"""How many places are read on their own. Those next to a peak can be clearer than the peak."""
_STAYED, _WITH_STAYED, _MOVED = 8, 96, 32
"""How many peaks are read in pairs: where the pattern has the size of the mark, those that are read
with these, and those that are read with each other."""
_CLEAREST = 12
"""How many candidates are decoded closely."""
_MOST = 3
"""The number of places that are added up at most."""
_BATCH = 128
"""Candidates that are decoded at the same time, which takes 10 MB."""
_NEAR = 2
"""The distance in samples up to which places show one and the same pattern."""

Place = tuple[int, int, int]
"""A scale's number, and the row and column of the sample at which a tile begins."""


class MovedTiles:
    """What a frame shows of a tile at each of ``SCALES``."""

    def __init__(self, luma: Plane, cell: float) -> None:
        flat = residual(resample(luma, cell / PER_CELL), PER_CELL, COMPRESSED)
        self._tiles = np.stack([matched(fold(_scaled(flat, scale), SIDE)) for scale in SCALES])

    def read(self, pattern: Pattern, tries: int) -> tuple[Payload, float] | None:
        """Return the clearest payload that any candidate decodes to, with the bound on its rate.

        The fixed cells propose places, which are decoded alone and in pairs. For a payload that
        comes of this, all cells of its tile tell where it is. The bound counts all payloads and all
        sets of places that there are, so that it does not matter how these were chosen. Only the
        clearest counts, since payloads whose code resembles that of a clear one seem clear, too.
        """
        template = template_of(pattern)
        matches = np.stack([correlate(tile, template) for tile in self._tiles])
        messages = self._messages(self._candidates(matches), pattern)
        payloads = [payload for message in messages if (payload := Payload.read(message)) is not None]
        readings = [(payload, self._lowest_rate(pattern.tile(payload), tries)) for payload in payloads]
        return min(readings, key=lambda reading: reading[1], default=None)

    def _messages(self, candidates: Sequence[Tile], pattern: Pattern) -> Iterable[Bits]:
        """Return what candidates decode to, and what else the clearest ones may say."""
        symbols = np.stack([pattern.measure(cells) for cells in candidates])
        messages = np.concatenate([decode(symbols[at : at + _BATCH]) for at in range(0, len(symbols), _BATCH)])
        norms = [float(np.linalg.norm(cells.ravel()[pattern.data])) + 1e-9 for cells in candidates]
        matches = [float(measured @ encode(message)) for measured, message in zip(symbols, messages, strict=True)]
        clearest = np.argsort(np.array(matches) / norms)[::-1][:_CLEAREST]
        found = [messages, *(decode_closely(symbols[at]) for at in clearest)]
        return {message.tobytes(): message for some in found for message in some}.values()

    def _candidates(self, matches: Plane) -> list[Tile]:
        stayed = [(_UNSCALED, row, column) for _, row, column in _peaks(matches[_UNSCALED : _UNSCALED + 1], _STAYED)]
        moved = [self._cells(place) for place in _peaks(matches, _WITH_STAYED) if place not in stayed]
        single = [self._cells(place) for place in _highest(matches, np.arange(matches.size), _SINGLE)]
        unmoved = [self._cells(place) for place in stayed]
        pairs = (*combinations(unmoved, 2), *product(unmoved, moved), *combinations(moved[:_MOVED], 2))
        return [*single, *unmoved, *(first + second for first, second in pairs)]

    def _lowest_rate(self, tile: Tile, tries: int) -> float:
        """Return the lowest bound for a payload of those places that resemble its tile most."""
        template = np.zeros((SIDE, SIDE), np.float32)
        template[::PER_CELL, ::PER_CELL] = tile
        places = _peaks(np.stack([correlate(shown, template) for shown in self._tiles]), _MOST)
        total, lowest = np.zeros_like(tile), math.inf
        for count, place in enumerate(places, 1):
            total += self._cells(place)
            match = float(np.vdot(total, tile)) / (float(np.linalg.norm(total)) + 1e-9)
            lowest = min(lowest, rate_of(match, tries * _sets_like(places[:count])))
        return lowest

    def _cells(self, place: Place) -> Tile:
        scale, row, column = place
        cells = cells_at(self._tiles[scale], (row, column))
        unit: Tile = cells / (float(np.linalg.norm(cells)) + 1e-9)
        return unit


def _sets_like(places: Sequence[Place]) -> float:
    """Return by how much the rate is divided for sets such as these places.

    Each number of places has the same share of the rate. Half of it is for those at which the
    pattern has the size of the mark, since much of a film does not move.
    """
    sizes = [SIDE**2 * 2 if scale == _UNSCALED else SIDE**2 * 2 * (len(SCALES) - 1) for scale, _, _ in places]
    return _MOST * math.prod(sizes) / math.factorial(len(places))


def _scaled(flat: Plane, scale: float) -> Plane:
    if scale == 1:
        return flat
    height, width = flat.shape
    size = max(1, round(width / scale)), max(1, round(height / scale))
    scaled: Plane = cv2.resize(flat, size, interpolation=cv2.INTER_CUBIC)
    return scaled


def _peaks(matches: Plane, count: int) -> list[Place]:
    """Return the highest peaks of ``[scales, SIDE, SIDE]``, the highest first."""
    around = np.pad(matches, ((_NEAR, _NEAR), (0, 0), (0, 0)), constant_values=-np.inf)
    around = np.max([around[shift : shift + len(matches)] for shift in range(2 * _NEAR + 1)], axis=0)
    for axis in (1, 2):
        around = np.max([np.roll(around, shift, axis) for shift in range(-_NEAR, _NEAR + 1)], axis=0)
    return _highest(matches, np.flatnonzero(matches >= around), count)


def _highest(matches: Plane, among: npt.NDArray[np.intp], count: int) -> list[Place]:
    """Return the ``count`` highest places of those numbered ``among``, the highest first."""
    highest = among[np.argsort(matches.ravel()[among])[::-1][:count]]
    return [
        (int(scale), int(row), int(column))
        for scale, row, column in zip(*np.unravel_index(highest, matches.shape), strict=True)
    ]
