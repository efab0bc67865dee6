"""Pictures whose colour space is stated by numbers look in sRGB as a viewer shows them.

The expected colours are computed here from published matrices and curves.
"""

import io
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from tests.pictures import decode_image
from tests.unit.serve.media.make_png import chunk
from tests.unit.serve.media.make_profile import profile_of
from tests.unit.serve.media.published_colours import FROM_XYZ, TO_XYZ, pq

SRGB = np.array([(180, 60, 40), (40, 140, 60), (60, 80, 190), (128, 128, 128), (230, 230, 225), (20, 22, 25)])
P3, BT2020, PQ, HLG = 12, 9, 16, 18
XY = {
    1: ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    P3: ((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)),
    BT2020: ((0.708, 0.292), (0.17, 0.797), (0.131, 0.046)),
}


def light(values: np.ndarray) -> np.ndarray:
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def coded(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, 1) ** (1 / 2.4) - 0.055)


def stored(primaries: int, transfer: int | float) -> np.ndarray:
    """Return the colours of ``SRGB`` in another space; a fraction is the gamma that codes them."""
    linear = light(SRGB / 255)
    if primaries != 1:
        linear = np.clip(linear @ TO_XYZ.T @ FROM_XYZ[primaries].T, 0, 1)
    if isinstance(transfer, float):
        return np.round(255 * linear**transfer).astype(np.uint8)
    return np.round(255 * (pq(203 * linear) if transfer == PQ else coded(linear))).astype(np.uint8)


def png(pixels: np.ndarray, *chunks: bytes, kind: int = 2) -> bytes:
    row = b"\0" + pixels.tobytes()
    parts = [chunk(b"IHDR", struct.pack(">IIBBBBB", len(pixels), 1, 8, kind, 0, 0, 0)), *chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*parts, chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")])


def cicp(primaries: int, transfer: int) -> bytes:
    return chunk(b"cICP", bytes([primaries, transfer, 0, 1]))


def gama(gamma: float) -> bytes:
    return chunk(b"gAMA", struct.pack(">I", round(100_000 * gamma)))


def chrm(primaries: int) -> bytes:
    points = [(0.3127, 0.329), *XY[primaries]]
    return chunk(b"cHRM", struct.pack(">8I", *(round(100_000 * value) for point in points for value in point)))


ICC = chunk(b"iCCP", b"x\0\0" + zlib.compress(profile_of("Adobe RGB")))
SRGB_CHUNK = chunk(b"sRGB", b"\0")
CASES = {
    "cICP, Display P3": (stored(P3, 13), [cicp(P3, 13)]),
    "cICP, BT.2020 by the curve of BT.709": (stored(BT2020, 14), [cicp(BT2020, 14)]),
    "cICP before all others": (stored(P3, 13), [ICC, SRGB_CHUNK, gama(1.0), chrm(BT2020), cicp(P3, 13)]),
    "cICP of sRGB before a profile": (stored(1, 13), [cicp(1, 13), ICC]),
    "sRGB before gAMA and cHRM": (stored(1, 13), [SRGB_CHUNK, gama(1.0), chrm(BT2020)]),
    "gAMA and cHRM": (stored(BT2020, 1 / 1.8), [gama(1 / 1.8), chrm(BT2020)]),
    "gAMA alone": (stored(1, 1 / 1.8), [gama(1 / 1.8)]),
    "cHRM alone": (stored(P3, 13), [chrm(P3)]),
    "what programs write beside sRGB": (stored(1, 13), [gama(0.45455), chrm(1)]),
    "a damaged cICP": (stored(1, 13), [chunk(b"cICP", b"\x09")]),
    "a gamma of 0": (stored(1, 13), [gama(0)]),
    "chromaticities of no colour space": (stored(1, 13), [gama(0.5), chunk(b"cHRM", bytes(32))]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_png_whose_chunks_state_its_colours(case: str) -> None:
    pixels, chunks = CASES[case]
    shown = decode_image(png(pixels, *chunks), 10**6)[0].astype(int)
    assert np.abs(shown - SRGB).max() <= 4
    assert np.abs(shown - SRGB).mean() < 1


def test_a_profile_comes_before_gamma() -> None:
    pixels = stored(1, 13)
    alone = decode_image(png(pixels, ICC), 10**6)
    np.testing.assert_array_equal(decode_image(png(pixels, gama(1.0), chrm(BT2020), SRGB_CHUNK, ICC), 10**6), alone)
    assert np.abs(alone[0].astype(int) - SRGB).mean() > 2


def test_grey_pictures_have_gamma_too() -> None:
    levels = SRGB[:, 0].astype(np.uint8)
    linear = np.round(255 * light(levels / 255)).astype(np.uint8)
    bright = levels > 100
    shown = decode_image(png(linear, gama(1.0), kind=0), 10**6)[0]
    assert np.abs(shown[bright, 1].astype(int) - levels[bright]).max() <= 2


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_hdr_is_tone_mapped(transfer: int) -> None:
    """BT.2390 leaves PQ below its knee, at 93 nits; HLG has a curve of its own, so it rises."""
    if transfer == PQ:
        shown = decode_image(png(stored(BT2020, PQ), cicp(BT2020, PQ)), 10**6)[0].astype(int)
        dark = (light(SRGB / 255) * 203).max(1) < 90
        assert np.abs(shown - SRGB)[dark].max() <= 8, "8 bits of PQ are coarse"
        assert np.abs(shown - SRGB)[dark].mean() < 2.5
    ramp = np.arange(256, dtype=np.uint8)[:, None].repeat(3, 1)
    shown = decode_image(png(ramp, cicp(BT2020, transfer)), 10**6)[0].astype(int)
    assert (np.diff(shown[:, 1]) >= 0).all()
    assert np.abs(shown - shown[:, :1]).max() <= 1
    assert (shown[0] == 0).all()
    assert shown[-1].min() >= 253


@pytest.mark.parametrize("kind", ["AVIF", "HEIF"])
@pytest.mark.parametrize(("primaries", "transfer"), [(P3, 13), (BT2020, 14), (BT2020, PQ)])
def test_the_numbers_in_a_heif_file_are_applied_unless_it_has_a_profile(kind: str, primaries: int, transfer: int) -> None:
    pixels = stored(primaries, transfer)[:4].repeat(32, 0).reshape(4, 32, 3).repeat(16, 0)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, kind, quality=95, **({"speed": 8} if kind == "AVIF" else {}))
    data = bytearray(buffer.getvalue())
    at = data.index(b"colrnclx") + 8
    data[at : at + 4] = struct.pack(">HH", primaries, transfer)
    shown = decode_image(bytes(data), 10**6)[8::16, 16].astype(int)
    dark = (light(SRGB[:4] / 255) * 203).max(1) < 90
    assert np.abs(shown - SRGB[:4])[dark].max() < 14
    assert np.abs(shown - SRGB[:4])[dark].mean() < 4
    plain = decode_image(buffer.getvalue(), 10**6)[8::16, 16].astype(int)
    assert np.abs(plain - SRGB[:4])[dark].mean() > 4
