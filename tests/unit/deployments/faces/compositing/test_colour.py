"""Matching colours: the mean and the spread become those of the target, measured inside a mask."""

import numpy as np
import pytest

from deployments.faces.compositing import colour
from deployments.faces.compositing.colour import Inside, match_colours, match_saturation, match_skin
from deployments.wire import Image


def noise(seed: int, low: int, high: int) -> Image:
    return np.random.default_rng(seed).integers(low, high, (64, 64, 3), dtype=np.uint8)


def test_the_mean_and_the_spread_become_the_targets() -> None:
    dark, bright = noise(1, 40, 90), noise(2, 130, 200)
    matched = match_colours(dark, bright, np.ones((64, 64), bool))
    np.testing.assert_allclose(matched.mean((0, 1)), bright.mean((0, 1)), atol=3)
    np.testing.assert_allclose(matched.std((0, 1)), bright.std((0, 1)), rtol=0.1)


def test_only_pixels_inside_the_mask_are_measured() -> None:
    inside = np.zeros((64, 64), bool)
    inside[16:48, 16:48] = True
    source, target = noise(3, 100, 140), noise(4, 60, 100)
    expected = match_colours(source, target, inside)
    target[~inside] = 255
    np.testing.assert_array_equal(match_colours(source, target, inside), expected)


def test_a_flat_target_does_not_flatten_the_source() -> None:
    """The spread is scaled by a factor of at least 0.5."""
    source, flat = noise(5, 80, 160), np.full((64, 64, 3), (120, 110, 100), np.uint8)
    matched = match_colours(source, flat, np.ones((64, 64), bool))
    assert 0.4 * source.std() < matched.std() < 0.6 * source.std()


def test_a_grey_target_makes_the_source_grey_and_a_coloured_one_does_not() -> None:
    source, everywhere = noise(5, 80, 160), np.ones((64, 64), bool)
    grey = noise(6, 60, 200)[..., :1].repeat(3, axis=2)
    result = match_saturation(source, grey, everywhere)
    assert (result == result[..., :1]).all()
    assert result.std() > 0.4 * source.std()
    np.testing.assert_array_equal(match_saturation(source, noise(7, 60, 200), everywhere), source)
    faint = grey.astype(np.int16)
    faint[..., 0] += 3
    between = match_saturation(source, faint.clip(0, 255).astype(np.uint8), everywhere)
    spreads = [float(np.ptp(image.astype(int), axis=2).mean()) for image in (result, between, source)]
    assert spreads[0] < spreads[1] < spreads[2]


def face(skin: tuple[int, int, int], around: tuple[int, int, int], side: int = 64) -> tuple[Image, Inside]:
    """Return skin with a white eye, amid hair or background, and where the skin is."""
    picture = np.full((side, side, 3), around, np.uint8)
    picture[side // 4 : -side // 4, side // 4 : -side // 4] = skin
    inside = (picture == skin).all(axis=2)
    picture[side // 2 - 4 : side // 2, side // 2 - 4 : side // 2] = (240, 240, 240)
    return picture, inside


def test_skin_takes_the_colour_of_skin_whatever_is_beside_it() -> None:
    large, _ = face((200, 150, 120), (30, 20, 15), 128)
    source_skin = face((200, 150, 120), (30, 20, 15))[1]
    results: list[Image] = []
    for around in ((250, 250, 250), (10, 10, 60)):
        target, target_skin = face((150, 105, 80), around)
        results.append(match_skin(large, target, source_skin, target_skin))
        assert np.abs(results[-1][40, 40].astype(int) - (150, 105, 80)).max() <= 6
    np.testing.assert_array_equal(results[0], results[1])


def test_white_turns_less_blue_on_a_pale_target_than_if_colours_were_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    source, source_skin = face((220, 140, 90), (30, 20, 15))
    target, target_skin = face((205, 180, 170), (30, 20, 15))

    def blue() -> int:
        red, _, blue = match_skin(source, target, source_skin, target_skin)[30, 30].astype(int)
        return int(blue - red)

    mixed = blue()
    monkeypatch.setattr(colour, "_DEPTH", (1.0, 1.0))
    assert mixed < 0.95 * blue()


def test_without_skin_to_measure_nothing_changes() -> None:
    source, skin = face((200, 150, 120), (30, 20, 15))
    np.testing.assert_array_equal(match_skin(source, source, skin, np.zeros_like(skin)), source)
