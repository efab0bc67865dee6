"""How large the cells of the pattern are."""

CELL_SIZES = (2, 4, 8)
"""The heights and widths of a cell in pixels that frames are marked with."""
_SHORTER_SIDES = (640, 1600)
"""From these shorter sides on, in pixels, a cell has the next size."""


def cell_size(height: int, width: int) -> int:
    """Return the height and width in pixels of a cell, for frames of this size.

    Small cells give more of them, and large ones survive a reduction. The sizes double, so that a
    frame at half its size has the cells of another size.
    """
    return CELL_SIZES[sum(min(height, width) >= side for side in _SHORTER_SIDES)]
