import numpy as np
import pytest

from serve.media.encode.palette import COLOURS, choose_palette, colours_of, in_palette
from serve.media.samples import pan, portrait

NOISE = np.random.default_rng(0).integers(0, 256, (4, 40, 50, 3), dtype=np.uint8)


def test_few_colours_are_kept_exactly_and_the_rest_is_transparent() -> None:
    frame = np.zeros((8, 9, 3), np.uint8)
    frame[2:], frame[5:] = (10, 20, 30), (255, 254, 253)
    palette = choose_palette(frame)
    colours = colours_of(palette)
    assert set(map(tuple, colours[colours[:, 0] == 255].tolist())) == {(255, 0, 0, 0), (255, 10, 20, 30), (255, 255, 254, 253)}
    assert not colours[COLOURS:].any()
    (indices,) = in_palette([frame], palette)
    np.testing.assert_array_equal(colours[indices][..., 1:], frame)


@pytest.mark.parametrize("samples", [NOISE[0], np.zeros((1, 1, 3), np.uint8), pan(portrait(), 1, 64, 64)[0]])
def test_no_pixel_gets_a_colour_that_is_not_in_the_palette(samples: np.ndarray) -> None:
    palette = choose_palette(samples)
    assert len(colours_of(palette)) == 256
    opaque = int((colours_of(palette)[:, 0] == 255).sum())
    assert opaque <= COLOURS
    for indices in in_palette(NOISE, palette):
        assert indices.max() < opaque


def test_only_the_rectangle_that_changes_is_dithered_again() -> None:
    first = pan(portrait(), 1, 64, 64)[0]
    second = first.copy()
    second[10:14, 20:30] = second[10:14, 20:30][::-1, ::-1]
    palette = choose_palette(first)
    one, two, three = in_palette([first, second, second], palette)
    outside = np.ones((64, 64), bool)
    outside[10:14, 20:30] = False
    assert (one == two)[outside].all()
    assert (one != two)[10:14, 20:30].any()
    np.testing.assert_array_equal(two, three)
