"""Arrays arrive as they were written, and a file that lies about its size is refused."""

import os

import numpy as np
import pytest

from serve.media.workers.shared_array import map_array, write_array


def test_an_array_is_mapped_as_it_was_written_and_outlives_the_descriptor() -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (3, 40, 50, 3), np.uint8)
    fd = write_array(pixels[:, ::-1])
    mapped = map_array(fd, pixels.shape)
    os.close(fd)
    np.testing.assert_array_equal(mapped, pixels[:, ::-1])
    mapped[0] = 9  # it is memory like any other
    assert mapped[0].min() == 9


def test_the_other_process_cannot_cut_the_file_short() -> None:
    fd = write_array(np.zeros((8, 8, 3), np.uint8))
    mapped = map_array(fd, (8, 8, 3))
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    assert mapped.sum() == 0
    os.close(fd)


@pytest.mark.parametrize("shape", [(8, 8, 4), (9, 8, 3), (0, 8, 3), (8, 8, -3), (2**40, 2**40, 3)])
def test_a_file_that_does_not_hold_the_shape_is_refused(shape: tuple[int, ...]) -> None:
    fd = write_array(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="does not hold"):
        map_array(fd, shape)
    os.close(fd)
