"""Colours of every space look as on a screen for BT.709 or sRGB."""

import numpy as np
import pytest

from serve.media.colour.space import D65, HLG, PQ, PRIMARIES, SRGB, ColourSpace, to_bt709, to_srgb_values, to_xyz
from tests.unit.serve.media.published_colours import BT2020, FROM_XYZ, P3, TO_XYZ, pq

PATCHES = np.array([(180, 60, 40), (40, 140, 60), (60, 80, 190), (128, 128, 128), (230, 230, 225), (20, 22, 25)]) / 255


def linear_in(primaries: int) -> np.ndarray:
    return np.asarray(np.clip(PATCHES**2.4 @ TO_XYZ.T @ FROM_XYZ[primaries].T, 0, 1))


@pytest.mark.parametrize("primaries", [P3, BT2020])
def test_colours_of_wide_primaries_that_bt709_has_are_exact(primaries: int) -> None:
    shown = to_bt709(linear_in(primaries) ** (1 / 2.4), ColourSpace(primaries, 1))
    assert np.abs(shown - PATCHES).max() < 1 / 255


def test_dark_and_middle_tones_of_pq_keep_their_luminance() -> None:
    """BT.2390 leaves what is below its knee, at 93 nits, as it is."""
    nits = 203 * linear_in(BT2020)
    shown = to_bt709(pq(nits), ColourSpace(BT2020, PQ))
    below = nits.max(1) < 90
    assert below.sum() >= 4
    assert np.abs(shown - PATCHES)[below].max() < 1.5 / 255


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_the_tone_curve_rises_to_white_without_clipping(transfer: int) -> None:
    top = pq(np.array(1000.0)) if transfer == PQ else 1.0
    ramp = np.linspace(0, float(top), 400)[:, None].repeat(3, 1)
    shown = to_bt709(ramp, ColourSpace(BT2020, transfer))
    assert np.abs(shown - shown[:, :1]).max() < 1e-6, "grey has a colour"
    assert (np.diff(shown[:, 0]) > 0).all()
    assert shown[-1, 0] == pytest.approx(1, abs=0.01)
    assert shown[0, 0] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("primaries", [P3, BT2020])
def test_the_matrix_of_primaries_is_the_published_one(primaries: int) -> None:
    np.testing.assert_allclose(to_xyz(PRIMARIES[1]), TO_XYZ, atol=5e-4)
    np.testing.assert_allclose(np.linalg.inv(to_xyz(PRIMARIES[primaries])), FROM_XYZ[primaries], atol=2e-3)
    np.testing.assert_allclose(to_xyz(PRIMARIES[primaries]).sum(1), [D65[0] / D65[1], 1, (1 - sum(D65)) / D65[1]], atol=1e-12)


@pytest.mark.parametrize("primaries", [[(0.0, 0.0)] * 3, [(0.3, 0.3)] * 3])
def test_chromaticities_of_no_colour_space_have_no_matrix(primaries: list[tuple[float, float]]) -> None:
    with pytest.raises((np.linalg.LinAlgError, ZeroDivisionError)):
        to_xyz(primaries)


RAMP = np.linspace(0, 1, 11)[:, None].repeat(3, 1)


@pytest.mark.parametrize("transfer", [0, 1, SRGB])
def test_bt709_stays_as_it_is_shown(transfer: int) -> None:
    np.testing.assert_allclose(to_bt709(RAMP, ColourSpace(1, transfer)), RAMP, atol=1e-9)


@pytest.mark.parametrize("transfer", [SRGB, PQ, HLG])
def test_srgb_codes_the_same_light_by_its_own_curve(transfer: int) -> None:
    by_bt709, by_srgb = to_bt709(RAMP, ColourSpace(P3, transfer)), to_srgb_values(RAMP, ColourSpace(P3, transfer))
    if transfer == SRGB:
        np.testing.assert_allclose(by_srgb, RAMP, atol=1e-6)
        np.testing.assert_allclose(by_bt709, RAMP, atol=1e-6)
    else:
        light = np.where(by_srgb <= 0.04045, by_srgb / 12.92, ((by_srgb + 0.055) / 1.055) ** 2.4)
        np.testing.assert_allclose(by_bt709**2.4, light, atol=1e-6)


def test_a_colour_that_bt709_lacks_is_clipped_to_its_range() -> None:
    shown = to_bt709(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), ColourSpace(BT2020, 1))
    np.testing.assert_allclose(shown, [[0, 1, 0], [1, 0, 0]], atol=1e-9)


@pytest.mark.parametrize("nits", [1_000.0, 4_000.0, 10_000.0])
def test_highlights_beyond_the_peak_keep_their_hue(nits: float) -> None:
    """All channels shrink alike, so that a bright orange does not turn yellow."""
    shown = to_bt709(pq(np.array([[1.0, 0.5, 0.25]]) * nits), ColourSpace(1, PQ)) ** 2.4
    assert np.isfinite(shown).all()
    assert shown.max() <= 1
    if nits == 1_000:
        np.testing.assert_allclose(shown / shown.max(), [[1, 0.5, 0.25]], rtol=1e-3)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_a_bright_colour_that_bt709_lacks_keeps_the_proportions_of_its_light(transfer: int) -> None:
    """Its brightest channel is compressed like that of any other colour, and not cut off."""
    ratio = np.array([1.0, 0.28, 0.2])  # of light in BT.709, which it exceeds only by its brightness
    nits = np.array([300.0, 500.0, 700.0])[:, None] * ratio
    in_bt2020 = nits @ TO_XYZ.T @ FROM_XYZ[BT2020].T
    if transfer == PQ:
        coded = pq(in_bt2020)
    else:
        scene = in_bt2020 / 1000
        luminance = scene @ np.array([0.2627, 0.6780, 0.0593])
        scene = scene * (luminance ** (1 / 1.2 - 1))[:, None]
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        coded = np.where(scene <= 1 / 12, np.sqrt(3 * scene), a * np.log(12 * np.maximum(scene, 0.03) - b) + c)
    light = to_bt709(coded, ColourSpace(BT2020, transfer)) ** 2.4
    np.testing.assert_allclose(light / light[:, :1], np.tile(ratio, (3, 1)), atol=0.01)
    assert (np.diff(light[:, 0]) > 0.01).all()
    assert light.max() < 1
