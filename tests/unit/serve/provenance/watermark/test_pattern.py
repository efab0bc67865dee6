import numpy as np

from serve.provenance.watermark.code import CODE_BITS, decode, encode
from serve.provenance.watermark.pattern import CELLS, PUBLISHED_SECRET, TILE, Pattern, pattern_of
from serve.provenance.watermark.payload import Payload

PAYLOAD = Payload(3, 0x7654321)


def test_each_cell_has_one_meaning() -> None:
    pattern = Pattern(b"a secret")
    cells = np.concatenate([pattern.data.ravel(), pattern.fixed])
    assert sorted(cells) == list(range(CELLS))
    assert pattern.data.shape[0] == CODE_BITS


def test_a_tile_shows_its_payload() -> None:
    pattern = Pattern(b"a secret")
    symbols = pattern.measure(pattern.tile(PAYLOAD))
    assert (np.sign(symbols) == encode(PAYLOAD.message)).all()
    assert Payload.read(decode(symbols[None])[0]) == PAYLOAD


def test_the_fixed_cells_are_those_that_all_payloads_share() -> None:
    pattern = Pattern(b"a secret")
    random = np.random.default_rng(1)
    tiles = np.stack([pattern.tile(Payload(0, int(number))) for number in random.integers(0, 1 << 28, 40)])
    shared = (tiles == tiles[0]).all(axis=0)
    assert (shared == (pattern.fixed_tile() != 0)).all()


def test_another_secret_gives_an_unrelated_pattern() -> None:
    one, other = Pattern(b"a secret").tile(PAYLOAD), Pattern(b"another secret").tile(PAYLOAD)
    assert abs(float((one * other).sum())) < 5 * TILE
    assert (pattern_of(PUBLISHED_SECRET).tile(PAYLOAD) == Pattern(PUBLISHED_SECRET).tile(PAYLOAD)).all()


def test_the_pattern_of_a_secret_is_the_same_in_every_release() -> None:
    signs = (pattern_of(PUBLISHED_SECRET).signs > 0).astype(np.uint8)
    assert np.packbits(signs).tobytes()[:8].hex() == "b1dbc0fa10410b25"
    assert pattern_of(PUBLISHED_SECRET).data[:2].tolist() == [[535, 329, 834, 489, 190], [875, 301, 465, 792, 867]]
