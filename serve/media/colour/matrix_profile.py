"""ICC profiles made from the few numbers by which files may state their colour space instead."""

import struct
from collections.abc import Sequence

import numpy as np

from serve.media.colour.space import D65, HLG, PQ, PRIMARIES, Floats, Point, to_xyz

_SRGB_GAMMA = 0.45455
_NEAR = 0.005
"""How far a gamma may be from that of sRGB to mean its curve, as most programs take it."""
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_GAMMAS = {4: 1 / 2.2, 5: 1 / 2.8, 8: 1.0}
"""The exponents of the transfer characteristics that differ from the curve of sRGB."""
_CURVE_STEPS = 1024
_MOST = 255.0


def profile_by_numbers(primaries: int, transfer: int, *, grey: bool = False) -> bytes:
    """Return the profile of a space that is stated as in H.273, or nothing for that of sRGB.

    HDR is stated by the tag ``cicp`` of ICC.1:2022; see ``hdr_space``. The primaries of standard
    definition and unknown ones count as those of BT.709.
    """
    chromaticities = PRIMARIES.get(primaries, PRIMARIES[1])
    if transfer in (PQ, HLG):
        numbers = b"cicp" + bytes(4) + bytes([primaries if primaries in PRIMARIES else 9, transfer, 0, 1])
        return _profile(to_xyz(chromaticities), D65, curve=_gamma_curve(1 / 2.2), further={b"cicp": numbers})
    if chromaticities == PRIMARIES[1] and transfer not in _GAMMAS:
        return b""
    return profile_by_chromaticities(_GAMMAS.get(transfer), chromaticities, D65, grey=grey)


def profile_by_chromaticities(
    gamma: float | None, primaries: Sequence[Point] = PRIMARIES[1], white: Point = D65, *, grey: bool = False
) -> bytes:
    """Return the profile of a space with these chromaticities, or nothing if there is none.

    ``gamma`` is the exponent that encodes light, such as 1 / 2.2; None stands for sRGB's curve.
    """
    if gamma is None or abs(gamma - _SRGB_GAMMA) < _NEAR:
        curve = _srgb_curve()
    elif 1 / _MOST < gamma < _MOST:
        curve = _gamma_curve(gamma)
    else:
        return b""
    try:
        matrix = to_xyz(primaries, white)
        np.linalg.inv(matrix)
        return _profile(matrix, white, curve, grey=grey)
    except (np.linalg.LinAlgError, ZeroDivisionError, struct.error, OverflowError, ValueError):
        return b""


def hdr_space(profile: bytes) -> tuple[int, int] | None:
    """Return the primaries and the transfer characteristic of a profile for PQ or HLG, or None."""
    if len(profile) < 132:
        return None
    (count,) = struct.unpack_from(">I", profile, 128)
    for at in range(132, min(132 + 12 * count, len(profile) - 11), 12):
        name, start, length = struct.unpack_from(">4sII", profile, at)
        if name == b"cicp" and length >= 12 and start + 12 <= len(profile):
            primaries, transfer = profile[start + 8], profile[start + 9]
            return (primaries if primaries in PRIMARIES else 1, transfer) if transfer in (PQ, HLG) else None
    return None


def _srgb_curve() -> bytes:
    steps = np.arange(_CURVE_STEPS) / (_CURVE_STEPS - 1)
    linear = np.where(steps <= 0.04045, steps / 12.92, ((steps + 0.055) / 1.055) ** 2.4)
    return b"curv" + struct.pack(">II", 0, _CURVE_STEPS) + np.round(65_535 * linear).astype(">u2").tobytes()


def _gamma_curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(256 / gamma)) + bytes(2)


def _profile(
    matrix: Floats, white: Point, curve: bytes, further: dict[bytes, bytes] | None = None, *, grey: bool = False
) -> bytes:
    """Return a profile of version 2 whose colours are adapted to D50 by Bradford's matrix."""
    x, y = white
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ np.array([x / y, 1, (1 - x - y) / y]))
    adapted = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD @ matrix
    tags = {
        b"desc": b"desc" + struct.pack(">II", 0, 2) + b"x\0" + bytes(78),
        b"cprt": b"text" + bytes(8),
        b"wtpt": _xyz(_D50),
    }
    if grey:
        tags[b"kTRC"] = curve
    else:
        tags |= {name: _xyz(column) for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True)}
        tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve)
    tags |= further or {}
    table, body = struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    head = struct.pack(">I4sI", 128 + len(table) + len(body), b"lcms", 0x02100000)
    head += b"mntr" + (b"GRAY" if grey else b"RGB ") + b"XYZ " + struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    return head + bytes(28) + _xyz(_D50)[8:] + bytes(48) + table + body


def _xyz(values: Floats) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65_536 * float(value)) for value in values))
