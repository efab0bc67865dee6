"""The blocks of a GIF file, which say whether its end is there."""

_HEADER_BYTES, _SCREEN_BYTES, _FRAME_BYTES = 6, 7, 9
_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, 0x3B
_HAS_COLOURS = 0x80


def has_end(data: bytes) -> bool:
    """Return whether the blocks of the GIF file ``data`` lead to its trailer.

    What follows the trailer does not count, and bytes between blocks are skipped, as in Pillow.
    """
    at = _HEADER_BYTES + _SCREEN_BYTES
    if len(data) < at:
        return False
    at += _colours_bytes(data[_HEADER_BYTES + 4])
    while at < len(data):
        kind = data[at]
        at += 1
        if kind == _TRAILER:
            return True
        if kind == _EXTENSION:
            at = _behind_pieces(data, at + 1)
        elif kind == _FRAME:
            if at + _FRAME_BYTES > len(data):
                return False
            at += _FRAME_BYTES + _colours_bytes(data[at + 8])
            at = _behind_pieces(data, at + 1)  # a byte before them is the size of LZW's first codes
    return False


def _colours_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & _HAS_COLOURS else 0


def _behind_pieces(data: bytes, at: int) -> int:
    """Return where the pieces of data end that begin at ``at``, each with its length before it."""
    while at < len(data) and data[at]:
        at += data[at] + 1
    return at + 1
