"""Reads a frame of a film in which the pattern has moved with the picture.

Video codecs predict most of a frame from others, with the pattern that those have. Where a film
pans or zooms, a frame therefore shows the pattern several times, each time moved and scaled as the
picture was, and each of them weakly. Here they are found and added up.
"""

import math
from collections.abc import Sequence
from itertools import combinations, product

import cv2
import numpy as np
import numpy.typing as npt

from serve.provenance.watermark.bound import rate_of
from serve.provenance.watermark.code import decode, decode_closely, encode
from serve.provenance.watermark.pattern import Pattern, Tile
from serve.provenance.watermark.payload import Payload, is_valid
from serve.provenance.watermark.residual import COMPRESSED, Plane, fold, resample, residual
from serve.provenance.watermark.tile import PER_CELL, SIDE, matched, template_of

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
        self._spectra = np.fft.rfft2(self._tiles)

    def read(self, pattern: Pattern, tries: int) -> tuple[Payload, float] | None:
        """Return the clearest payload that any candidate decodes to, with the bound on its rate.

        The fixed cells propose places, which are decoded alone and in pairs. For a payload that
        comes of this, all cells of its tile tell where it is. The bound counts all payloads and all
        sets of places that there are, so that it does not matter how these were chosen. Only the
        clearest counts, since payloads whose code resembles that of a clear one seem clear, too.
        """
        payloads = self._payloads(self._candidates(self._matches(template_of(pattern))), pattern)
        readings = [(payload, self._lowest_rate(pattern.tile(payload), tries)) for payload in payloads]
        return min(readings, key=lambda reading: reading[1], default=None)

    def _matches(self, template: Plane) -> Plane:
        """Return the circular correlation with a template, ``[scales, SIDE, SIDE]``."""
        product = self._spectra * np.conj(np.fft.rfft2(template))
        return np.fft.irfft2(product, s=template.shape).astype(np.float32)

    def _payloads(self, candidates: Tile, pattern: Pattern) -> set[Payload]:
        """Return what candidates ``[n, TILE, TILE]`` say, and what else the clearest may say."""
        symbols = pattern.measure(candidates)
        decoded = np.concatenate([decode(symbols[at : at + _BATCH]) for at in range(0, len(symbols), _BATCH)])
        norms = np.linalg.norm(candidates.reshape(len(candidates), -1)[:, pattern.data.ravel()], axis=1) + 1e-9
        matches = (symbols * encode(decoded)).sum(axis=1)
        clearest = np.argsort(matches / norms)[::-1][:_CLEAREST]
        messages = np.concatenate([decoded, *(decode_closely(symbols[at]) for at in clearest)])
        read = (Payload.read(message) for message in messages[is_valid(messages)])
        return {payload for payload in read if payload is not None}

    def _candidates(self, matches: Plane) -> Tile:
        """Return cells ``[n, TILE, TILE]``: of single places, and of pairs of places added up."""
        stayed = [(_UNSCALED, row, column) for _, row, column in peaks(matches[_UNSCALED : _UNSCALED + 1], _STAYED)]
        moved = [place for place in peaks(matches, _WITH_STAYED) if place not in stayed]
        single = self._cells(_highest(matches, np.arange(matches.size), _SINGLE))
        clear = self._cells(stayed + moved)
        unmoved, others = range(len(stayed)), range(len(stayed), len(clear))
        pairs = [*combinations(unmoved, 2), *product(unmoved, others), *combinations(others[:_MOVED], 2)]
        first, second = np.array(pairs).T
        return np.concatenate([single, clear[: len(stayed)], clear[first] + clear[second]])

    def _lowest_rate(self, tile: Tile, tries: int) -> float:
        """Return the lowest bound for a payload of those places that resemble its tile most."""
        template = np.zeros((SIDE, SIDE), np.float32)
        template[::PER_CELL, ::PER_CELL] = tile
        places = peaks(self._matches(template), _MOST)
        total, lowest = np.zeros_like(tile), math.inf
        for count, cells in enumerate(self._cells(places), 1):
            total += cells
            match = float(np.vdot(total, tile)) / (float(np.linalg.norm(total)) + 1e-9)
            lowest = min(lowest, rate_of(match, tries * _sets_like(places[:count])))
        return lowest

    def _cells(self, places: Sequence[Place]) -> Tile:
        """Return the cells ``[n, TILE, TILE]`` of tiles that begin at places, each of norm 1."""
        scales, rows, columns = np.array(places).T[:, :, None, None]
        steps = np.arange(0, SIDE, PER_CELL)
        cells = self._tiles[scales, (rows + steps[:, None]) % SIDE, (columns + steps) % SIDE]
        unit: Tile = cells / (np.linalg.norm(cells, axis=(1, 2), keepdims=True) + np.float32(1e-9))
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


def peaks(matches: Plane, count: int) -> list[Place]:
    """Return the highest peaks of ``[scales, SIDE, SIDE]``, the highest first."""
    around = np.pad(matches, ((_NEAR, _NEAR), (0, 0), (0, 0)), constant_values=-np.inf)
    around = np.pad(around, ((0, 0), (_NEAR, _NEAR), (_NEAR, _NEAR)), mode="wrap")
    for axis in range(3):
        around = _highest_of_neighbours(around, axis)
    return _highest(matches, np.flatnonzero(matches >= around), count)


def _highest_of_neighbours(values: Plane, axis: int) -> Plane:
    """Return the highest of each ``2 * _NEAR + 1`` values that lie side by side along an axis."""
    lined = np.moveaxis(values, axis, 0)
    left = len(lined) - 2 * _NEAR
    highest = lined[:left].copy()
    for shift in range(1, 2 * _NEAR + 1):
        np.maximum(highest, lined[shift : shift + left], out=highest)
    return np.moveaxis(highest, 0, axis)


def _highest(matches: Plane, among: npt.NDArray[np.intp], count: int) -> list[Place]:
    """Return the ``count`` highest places of those numbered ``among``, the highest first."""
    values = matches.ravel()[among]
    if len(among) > count:
        kept = np.argpartition(values, -count)[-count:]
        among, values = among[kept], values[kept]
    highest = among[np.argsort(values)[::-1]]
    return [
        (int(scale), int(row), int(column))
        for scale, row, column in zip(*np.unravel_index(highest, matches.shape), strict=True)
    ]
