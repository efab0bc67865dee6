"""Finds and reads watermarks."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from deployments.wire import Frames
from serve.provenance.watermark.bound import rate_of
from serve.provenance.watermark.code import decode, encode
from serve.provenance.watermark.grid import CELL_SIZES, cell_size
from serve.provenance.watermark.motion import MovedTiles
from serve.provenance.watermark.pattern import PUBLISHED_SECRET, Pattern, pattern_of
from serve.provenance.watermark.payload import Payload
from serve.provenance.watermark.residual import Plane, correlate, fold, resample, residual
from serve.provenance.watermark.tile import PER_CELL, SIDE, cells_at, matched, template_of

MAX_RATE = 1e-6
"""The rate of false detections up to which a reading counts."""
_NATIVE = {CELL_SIZES[0] / 2: (0, 320), 2.0: (0, 800), 4.0: (200, 3200), 8.0: (500, 1 << 30)}
"""The cell sizes of frames as they were marked and at half their size, and the shorter sides in
pixels that frames with such cells can have."""
_PLACES_OF_SUM, _PLACES_OF_SCAN = 6, 8
_STAGES = 3
"""The stages of a detection share the rate of false detections."""
_LAYERS = 3
"""The number of watermarks that are looked for in one place, one below the other."""
_SCANNED_SIDE = 480
_SCANNED_CELLS = tuple(float(cell) for cell in np.geomspace(1.0, 9.0, 628))
"""Steps of 0.35 %, over which the pattern of a frame of 300 cells is out of place by one cell."""


@dataclass(frozen=True)
class Reading:
    """A watermark that was found.

    ``false_positive_rate`` is an upper bound on the probability that frames without a watermark of
    the secret numbered ``secret`` give any reading as clear as this one. ``cell`` is the size of
    the pattern's cells in pixels, which tells by how much a frame was scaled.
    """

    payload: Payload
    false_positive_rate: float
    secret: int
    cell: float


class Detector:
    """Looks for the watermarks of one or several secrets.

    Unless ``scaled`` is true, it finds only those of frames at their own size and at half of it,
    also if they were cropped, which takes a tenth of the time.
    """

    def __init__(self, secrets: Sequence[bytes] = (PUBLISHED_SECRET,), *, scaled: bool = True) -> None:
        self._patterns = [pattern_of(secret) for secret in secrets]
        self._scaled = scaled
        self.lowest_rate = math.inf
        """The lowest bound of anything that was read as a payload so far, whether it counts or not,
        which tells how near frames without a watermark come to one. It may be over 1."""

    def detect(self, frames: Iterable[Plane]) -> Reading | None:
        """Return the clearest reading of frames, or None; see ``detect_all``."""
        return next(iter(self.detect_all(frames)), None)

    def detect_all(self, frames: Iterable[Plane]) -> tuple[Reading, ...]:
        """Return what luma planes ``[height, width]`` of frames of one size show, clearest first.

        A result of which another one is made carries the watermarks of both, and nothing tells
        which of them is newer. It looks first for the cells of frames as they were marked and of
        halved ones. If they are not there, it looks in the first frame for patterns that have moved
        with the picture, and then for cells of any other scale.
        """
        tiles: dict[float, list[Plane]] = {}
        first: Plane | None = None
        for frame in frames:
            first = frame if first is None else first
            for cell in _native_cells(min(frame.shape)):
                tiles.setdefault(cell, []).append(_tile_of(frame, cell))
        if first is None:
            return ()
        return self._read_native(tiles) or self._read_moved(first) or (self._read_scaled(first) if self._scaled else ())

    def _read_native(self, tiles: dict[float, list[Plane]]) -> tuple[Reading, ...]:
        places = sum(_PLACES_OF_SUM + 2 * len(of_cell) for of_cell in tiles.values())
        tries = _STAGES * _LAYERS * places * len(self._patterns)
        readings = [
            Reading(*found, number, cell)
            for cell, of_cell in tiles.items()
            for number, pattern in enumerate(self._patterns)
            for found in self._read(list(_candidates(of_cell, pattern)), pattern, tries)
        ]
        return _distinct(readings)

    def _read_moved(self, frame: Plane) -> tuple[Reading, ...]:
        cell = float(cell_size(*frame.shape))
        tiles, readings = MovedTiles(frame, cell), []
        for number, pattern in enumerate(self._patterns):
            found = tiles.read(pattern, _STAGES * len(self._patterns))
            if found is None:
                continue
            payload, rate = found
            self.lowest_rate = min(self.lowest_rate, rate)
            if rate <= MAX_RATE:
                readings.append(Reading(payload, rate, secret=number, cell=cell))
        return _distinct(readings)

    def _read_scaled(self, frame: Plane) -> tuple[Reading, ...]:
        reduced = resample(frame, max(1.0, min(frame.shape) / _SCANNED_SIDE))
        pixels = min(frame.shape) / min(reduced.shape)
        flat = residual(reduced, PER_CELL)
        tries = _STAGES * _LAYERS * _PLACES_OF_SCAN * len(self._patterns) * len(_SCANNED_CELLS)
        for number, pattern in enumerate(self._patterns):
            template = template_of(pattern)
            found: list[tuple[float, float, Plane, tuple[int, int]]] = []
            for cell in _SCANNED_CELLS:
                tile = matched(fold(resample(flat, cell / PER_CELL), SIDE))
                match = correlate(tile, template)
                place = _peaks(match, 1)[0]
                found.append((float(match[place]), cell * pixels, tile, place))
            for _, cell, tile, place in sorted(found, key=lambda item: item[0], reverse=True)[:_PLACES_OF_SCAN]:
                readings = [Reading(*read, number, cell) for read in self._read([cells_at(tile, place)], pattern, tries)]
                if readings:
                    return _distinct(readings)
        return ()

    def _read(self, tiles: Sequence[Plane], pattern: Pattern, tries: int) -> Iterator[tuple[Payload, float]]:
        """Yield the payloads that tiles of measured cells surely hold, with the bounds on rates.

        What was read is taken away, and what is left is read again: two marks in one place hide
        each other only in part.
        """
        for _ in range(_LAYERS):
            if not tiles:
                return
            symbols = np.stack([pattern.measure(tile) for tile in tiles])
            left = []
            for tile, measured, message in zip(tiles, symbols, decode(symbols), strict=True):
                payload = Payload.read(message)
                norm = float(np.linalg.norm(tile.ravel()[pattern.data]))
                if payload is None or not norm:
                    continue
                rate = rate_of(float(measured @ encode(message)) / norm, tries)
                self.lowest_rate = min(self.lowest_rate, rate)
                if rate <= MAX_RATE:
                    yield payload, rate
                    left.append(_without(tile, pattern, payload))
            tiles = left


def _distinct(readings: Iterable[Reading]) -> tuple[Reading, ...]:
    """Return the clearest reading of each payload, the clearest of all first."""
    found: dict[tuple[int, Payload], Reading] = {}
    for reading in sorted(readings, key=lambda reading: reading.false_positive_rate):
        found.setdefault((reading.secret, reading.payload), reading)
    return tuple(found.values())


def detect(frames: Frames, secrets: Sequence[bytes] = (PUBLISHED_SECRET,), *, scaled: bool = True) -> Reading | None:
    """Return what uint8 RGB frames ``[n, height, width, 3]`` show, or None; see ``Detector``."""
    return Detector(secrets, scaled=scaled).detect(
        cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32) for frame in frames
    )


def _tile_of(luma: Plane, cell: float) -> Plane:
    """Return the residual of a frame, folded to one tile at half-cell steps and of norm 1."""
    return matched(fold(residual(resample(luma, cell / PER_CELL), PER_CELL), SIDE))


def _native_cells(side: int) -> list[float]:
    return [cell for cell, (least, most) in _NATIVE.items() if least <= side <= most]


def _candidates(tiles: Sequence[Plane], pattern: Pattern) -> Iterator[Plane]:
    """Yield tiles ``[TILE, TILE]`` of measured cells that may hold a payload.

    The fixed cells say where a tile begins and how much of the pattern each frame has kept. They
    are independent of the others, which alone decide about the payload.
    """
    template = template_of(pattern)
    matches = [correlate(tile, template) for tile in tiles]
    for place in _peaks(sum(matches[1:], matches[0]), _PLACES_OF_SUM):
        yield cells_at(_weighted(tiles, matches, place), place)
    if len(tiles) == 1:
        return
    for tile, match in zip(tiles, matches, strict=True):
        place = _peaks(match, 1)[0]
        yield cells_at(tile, place)
        yield cells_at(_weighted(tiles, matches, place), place)


def _weighted(tiles: Sequence[Plane], matches: Sequence[Plane], place: tuple[int, int]) -> Plane:
    """Return the sum of tiles, each with the weight of its match at a place."""
    weights = [max(0.0, float(match[place])) for match in matches]
    total: Plane = np.sum([weight * tile for weight, tile in zip(weights, tiles, strict=True)], axis=0)
    return total


def _peaks(match: Plane, count: int) -> list[tuple[int, int]]:
    best = np.argpartition(match.ravel(), -count)[-count:]
    ordered = best[np.argsort(match.ravel()[best])[::-1]]
    return [(int(at) // SIDE, int(at) % SIDE) for at in ordered]


def _without(tile: Plane, pattern: Pattern, payload: Payload) -> Plane:
    """Return measured cells without what they have in common with the tile of ``payload``."""
    rest, cells = tile.flatten(), pattern.data.ravel()
    known = pattern.tile(payload).ravel()[cells]
    rest[cells] -= known * (rest[cells] @ known) / len(cells)
    return rest.reshape(tile.shape)
