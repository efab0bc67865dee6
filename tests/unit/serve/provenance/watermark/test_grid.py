"""How large the cells of the pattern are follows from the size of the frame."""

import itertools

import pytest

from serve.provenance.watermark.grid import CELL_SIZES, cell_size


@pytest.mark.parametrize(
    ("height", "width", "cell"), [(144, 256, 2), (639, 5000, 2), (640, 640, 4), (1080, 1920, 4), (3000, 4000, 8)]
)
def test_cells_grow_with_the_shorter_side(height: int, width: int, cell: int) -> None:
    assert cell_size(height, width) == cell_size(width, height) == cell


def test_a_frame_at_half_its_size_has_the_cells_of_another_size() -> None:
    for one, half in itertools.pairwise(reversed(CELL_SIZES)):
        assert one == 2 * half
    assert {cell_size(side, side) for side in range(1, 4000)} == set(CELL_SIZES)
