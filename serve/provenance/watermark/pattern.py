"""The pattern that a secret gives: which cells of a tile carry what, and their signs."""

import hashlib
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from serve.provenance.watermark.code import CODE_BITS, Symbols, encode
from serve.provenance.watermark.payload import Payload

TILE = 32
"""The height and width of a tile in cells."""
CELLS = TILE * TILE
CELLS_PER_SYMBOL = 5
_DATA_CELLS = CODE_BITS * CELLS_PER_SYMBOL
PUBLISHED_SECRET = b"ryla-serve: a secret that everybody knows, for demonstrations"
"""The secret if the operator sets none. It keeps nobody from removing the watermark."""

Tile = npt.NDArray[np.float32]
"""A value for each cell of a tile, ``[TILE, TILE]``."""


class Pattern:
    """The pattern of a secret.

    A tile has 1,024 cells. The signs of 224 are fixed and tell where a tile begins; the others
    carry the code's 160 symbols, five cells each. All signs are independent and come from SHAKE256,
    on which the detector's rate of false detections rests.
    """

    def __init__(self, secret: bytes) -> None:
        order = np.frombuffer(hashlib.shake_256(b"order of cells\0" + secret).digest(8 * CELLS), "<u8")
        signs = np.frombuffer(hashlib.shake_256(b"signs of cells\0" + secret).digest(CELLS), np.uint8)
        cells = np.argsort(order, kind="stable")
        self.signs: npt.NDArray[np.float32] = np.where(signs & 1, np.float32(1), np.float32(-1))
        """The sign of each cell ``[CELLS]``, row by row."""
        self.data: npt.NDArray[np.intp] = cells[:_DATA_CELLS].reshape(CODE_BITS, CELLS_PER_SYMBOL)
        """The numbers of the cells that carry each symbol."""
        self.fixed: npt.NDArray[np.intp] = cells[_DATA_CELLS:]
        """The numbers of the cells that are always the same."""

    def tile(self, payload: Payload) -> Tile:
        """Return the tile, of -1 and 1, that carries ``payload``."""
        tile = self.signs.copy()
        tile[self.data] *= encode(payload.message)[:, None]
        return tile.reshape(TILE, TILE)

    def fixed_tile(self) -> Tile:
        """Return the tile without what carries the payload."""
        tile = np.zeros(CELLS, np.float32)
        tile[self.fixed] = self.signs[self.fixed]
        return tile.reshape(TILE, TILE)

    def measure(self, cells: Tile) -> Symbols:
        """Return the symbols ``[..., CODE_BITS]`` that cells ``[..., TILE, TILE]`` show."""
        flat = cells.reshape(*cells.shape[:-2], CELLS) * self.signs
        symbols: Symbols = flat[..., self.data].sum(axis=-1)
        return symbols


@lru_cache(maxsize=16)
def pattern_of(secret: bytes) -> Pattern:
    """Return the pattern of a secret, which is made once."""
    return Pattern(secret)
