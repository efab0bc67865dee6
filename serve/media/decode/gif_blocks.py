"""The blocks of a GIF file."""

from collections.abc import Iterator

EXTENSION, FRAME, TRAILER = 0x21, 0x2C, 0x3B
"""The kinds of blocks, which are their first bytes."""
SCREEN_FLAGS = 10
"""Where the flags of the whole file are."""
SCREEN_END = 13
"""Where its colours begin, or else its blocks."""
FRAME_BYTES = 9
"""The place, the size and the flags of a frame, which stand before its colours and its pixels."""
_HAS_COLOURS = 0x80


def blocks(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the kind of each block of the GIF file ``data``, and where its content begins and ends.

    The trailer is the last one, whatever follows it. Bytes between blocks are skipped, as in
    Pillow, and a block that is cut off is left out: without its end, a file has no trailer.
    """
    at = SCREEN_END
    if len(data) < at:
        return
    at += len(colours(data, SCREEN_FLAGS, at))
    while at < len(data):
        kind = data[at]
        at = start = at + 1
        if kind == TRAILER:
            yield kind, start, start
            return
        if kind == EXTENSION:
            at = _behind_pieces(data, start + 1)
        elif kind == FRAME:
            if start + FRAME_BYTES > len(data):
                return
            at = start + FRAME_BYTES + len(colours(data, start + FRAME_BYTES - 1, start + FRAME_BYTES))
            at = _behind_pieces(data, at + 1)  # a byte before them is the size of LZW's first codes
        else:
            continue
        if at <= len(data):
            yield kind, start, at


def colours(data: bytes, flags: int, at: int) -> bytes:
    """Return the table of colours at ``at``, if the flags at ``flags`` say that there is one."""
    size = 3 << (data[flags] & 7) + 1 if data[flags] & _HAS_COLOURS else 0
    return data[at : at + size]


def _behind_pieces(data: bytes, at: int) -> int:
    """Return where the pieces of data end that begin at ``at``, each with its length before it."""
    while at < len(data) and data[at]:
        at += data[at] + 1
    return at + 1
