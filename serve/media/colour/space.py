"""Colour spaces by the numbers of FFmpeg and ITU-T H.273, and their conversion to BT.709."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Point = tuple[float, float]

_BT2020, _P3_DCI, _P3_DISPLAY = 9, 11, 12
PQ, HLG, SRGB = 16, 18, 13
_GAMMA = 2.4
"""The exponent of BT.1886, by which screens show BT.709."""
_WHITE_NITS = 203.0
"""The luminance of white in HDR video that also has SDR parts (BT.2408)."""
_PEAK_NITS = 1000.0
"""The peak of the display that HDR video is made for: the one of HLG, and the usual one of PQ."""
D65 = (0.3127, 0.3290)
PRIMARIES = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    _BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    _P3_DCI: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    _P3_DISPLAY: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
"""The chromaticities of red, green and blue, by their numbers. White is D65 for all of them."""


@dataclass(frozen=True)
class ColourSpace:
    """Primaries and a transfer characteristic, by their numbers."""

    primaries: int
    transfer: int


def to_bt709(rgb: Floats, space: ColourSpace) -> Floats:
    """Return R'G'B' values ``[n, 3]`` of ``space``, each from 0 to 1, as R'G'B' of BT.709."""
    linear = _linear_of(rgb, space)
    return _srgb_of(linear) if space.transfer == SRGB else linear ** (1 / _GAMMA)


def to_srgb_values(rgb: Floats, space: ColourSpace) -> Floats:
    """Return R'G'B' values ``[n, 3]`` of ``space``, each from 0 to 1, as R'G'B' of sRGB."""
    return _srgb_of(_linear_of(rgb, space))


def _linear_of(rgb: Floats, space: ColourSpace) -> Floats:
    """Return light in the primaries of BT.709, each from 0 to 1."""
    matrix = (np.linalg.inv(to_xyz(PRIMARIES[1])) @ to_xyz(PRIMARIES[space.primaries])).T
    if space.transfer in (PQ, HLG):
        nits = _pq_to_nits(rgb) if space.transfer == PQ else _hlg_to_nits(rgb)
        # What BT.709 cannot show is brightest there: mapped before, it would be cut off and lose
        # its hue.
        return np.clip(_tone_map(nits @ matrix) / _WHITE_NITS, 0, 1)
    is_srgb = space.transfer == SRGB
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) if is_srgb else rgb**_GAMMA
    return np.clip(linear @ matrix, 0, 1)


def _srgb_of(linear: Floats) -> Floats:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def to_xyz(primaries: Sequence[Point], white: Point = D65) -> Floats:
    """Return the matrix from linear RGB to XYZ, by chromaticities of red, green, blue and white.

    Raises ``numpy.linalg.LinAlgError`` or ``ZeroDivisionError`` for those of no colour space.
    """
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in primaries]).T
    x, y = white
    return columns * np.linalg.solve(columns, np.array([x / y, 1, (1 - x - y) / y]))


def _pq_to_nits(values: Floats) -> Floats:
    """Apply the EOTF of SMPTE ST 2084."""
    root = values ** (1 / 78.84375)
    return 10_000 * (np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)) ** (1 / 0.1593017578125)


def _nits_to_pq(nits: Floats) -> Floats:
    power = (np.maximum(nits, 0) / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375


def _hlg_to_nits(values: Floats) -> Floats:
    """Apply the inverse OETF and the OOTF of BT.2100 for a display of 1,000 nits."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    scene = np.where(values <= 0.5, values**2 / 3, (np.exp((values - c) / a) + b) / 12)
    luminance: Floats = scene @ np.array([0.2627, 0.6780, 0.0593])
    gain: Floats = np.maximum(luminance, 1e-9)[:, None] ** 0.2
    return _PEAK_NITS * scene * gain


def _tone_map(nits: Floats) -> Floats:
    """Compress up to ``_PEAK_NITS`` into ``_WHITE_NITS``, by the curve of BT.2390.

    All channels of a pixel are scaled alike, by its brightest one, which keeps the hue.
    """
    top = float(_nits_to_pq(np.array(_PEAK_NITS)))
    brightest = np.clip(nits.max(axis=1), 1e-6, _PEAK_NITS)
    level, target = _nits_to_pq(brightest) / top, float(_nits_to_pq(np.array(_WHITE_NITS))) / top
    knee = 1.5 * target - 0.5
    t = np.clip((level - knee) / (1 - knee), 0, 1)
    spline = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * target
    mapped = _pq_to_nits(np.where(level < knee, level, spline) * top)
    gain: Floats = (mapped / brightest)[:, None]
    return np.clip(nits, 0, _PEAK_NITS) * gain
