"""The frames of a GIF file, each as a GIF of its own."""

import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import partial

from serve.media.decode.canvas import Disposal, Piece
from serve.media.decode.gif_blocks import EXTENSION, FRAME, FRAME_BYTES, SCREEN_END, SCREEN_FLAGS, TRAILER, blocks, colours
from serve.media.errors import MediaError
from serve.media.images import DAMAGED

_DISPOSALS = {2: Disposal.CLEAR, 3: Disposal.RESTORE, 4: Disposal.RESTORE}
"""Browsers take 4 for 3, because old programs write it, and anything else for nothing to do."""
_CONTROL = 0xF9
_CONTROL_BYTES = 4
_INTERLACED = 0x40
_COLOURS_SIZE = 0x87
"""The flags that say whether there is a table of colours, and of which size."""


def gif_frames(data: bytes) -> Iterator[Piece]:
    """Yield the frames of the GIF file ``data``, which are not decoded yet.

    Raises ``MediaError`` for a frame of no pixels, and behind the last one if the file has no end.
    """
    control = bytes(_CONTROL_BYTES)
    kind = None
    for kind, start, end in blocks(data):
        if kind == FRAME:
            yield _piece(data, (start, end), control)
            control = bytes(_CONTROL_BYTES)
        elif kind == EXTENSION and data[start] == _CONTROL and data[start + 1] >= _CONTROL_BYTES:
            control = data[start + 2 : start + 2 + _CONTROL_BYTES]
    if kind != TRAILER:
        raise MediaError("the GIF is truncated: its end is missing; send the complete file")


def _piece(data: bytes, place: tuple[int, int], control: bytes) -> Piece:
    left, top, width, height = struct.unpack_from("<4H", data, place[0])
    if not width or not height:
        raise MediaError(f"{DAMAGED[0]} (a frame has no pixels); {DAMAGED[1]}")
    (hundredths,) = struct.unpack_from("<H", control, 1)
    return Piece(
        (left, top, left + width, top + height),
        _DISPOSALS.get(control[0] >> 2 & 7, Disposal.KEEP),
        blends=True,
        seconds=Fraction(hundredths, 100),
        file=partial(_file, data, place, control),
    )


def _file(data: bytes, place: tuple[int, int], control: bytes) -> bytes:
    """Return the frame at ``place`` as a GIF of its size, with its colours and its transparency."""
    start, end = place
    flags = start + FRAME_BYTES - 1
    own = colours(data, flags, flags + 1)
    table, described = (own, flags) if own else (colours(data, SCREEN_FLAGS, SCREEN_END), SCREEN_FLAGS)
    size = data[start + 4 : start + 8]
    return b"".join(
        [
            *(b"GIF89a", size, bytes([data[described] & _COLOURS_SIZE, 0, 0]), table),
            *(b"!\xf9\4", bytes([control[0] & 1, 0, 0, control[3]]), b"\0"),
            *(b",\0\0\0\0", size, bytes([data[flags] & _INTERLACED]), data[flags + 1 + len(own) : end], b";"),
        ]
    )
