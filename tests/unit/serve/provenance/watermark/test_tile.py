import numpy as np

from serve.provenance.watermark.pattern import PUBLISHED_SECRET, TILE, pattern_of
from serve.provenance.watermark.tile import PER_CELL, SIDE, cells_at, matched, template_of

PATTERN = pattern_of(PUBLISHED_SECRET)


def test_the_template_has_the_fixed_cells_and_nothing_else() -> None:
    template = template_of(PATTERN)
    assert (template[::PER_CELL, ::PER_CELL] == PATTERN.fixed_tile()).all()
    assert np.count_nonzero(template) == len(PATTERN.fixed)


def test_the_cells_of_a_tile_are_those_from_its_place_on() -> None:
    samples = np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE)
    cells = cells_at(samples, (3, 63))
    assert cells.shape == (TILE, TILE)
    assert (cells[0, 0], cells[0, 1], cells[-1, 0]) == (samples[3, 63], samples[3, 1], samples[1, 63])


def test_the_matched_filter_returns_the_cells_of_a_pattern_that_was_scaled_up() -> None:
    pattern = np.random.default_rng(1).choice(np.array([-1, 1], np.float32), (TILE, TILE))
    corner = np.array([[1, 0], [0, 0]], np.float32)
    spread = np.zeros((SIDE, SIDE), np.float32)
    for row, vertical in zip((-1, 0, 1, 2), (0.25, 0.75, 0.75, 0.25), strict=True):
        for column, horizontal in zip((-1, 0, 1, 2), (0.25, 0.75, 0.75, 0.25), strict=True):
            weight = vertical * horizontal
            spread += weight * np.roll(np.kron(pattern, corner), (row, column), (0, 1))
    tile = matched(spread)
    cells = cells_at(tile, (0, 0))
    assert abs(float(np.linalg.norm(tile)) - 1) < 1e-5
    assert np.corrcoef(cells.ravel(), pattern.ravel())[0, 1] > 0.8
