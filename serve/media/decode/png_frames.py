"""The frames of an animated PNG, each as a PNG of its own."""

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial

from serve.media.decode.canvas import Disposal, Piece
from serve.media.errors import MediaError
from serve.media.images import DAMAGED
from serve.media.strip.png import chunks, write_chunk

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SHARED = {b"PLTE": 3 * 256, b"tRNS": 256}
"""The chunks that all frames share, with the most bytes that they may have."""
_CONTROL = struct.Struct(">4x4I2H2B")
"""The size and place of a frame, the fraction of a second that it lasts, disposal, and blending."""
_DISPOSALS = (Disposal.KEEP, Disposal.CLEAR, Disposal.RESTORE)
_DEFAULT_DENOMINATOR = 100


def png_frames(data: bytes) -> Iterator[Piece]:
    """Yield the frames of the animated PNG ``data``, which are not decoded yet.

    They have neither the profile nor the orientation of the file. Raises ``MediaError`` for a frame
    that is not in the picture; ``strip_png`` leaves such a one only if the file is truncated.
    """
    header = shared = control = b""
    begin = 0
    for kind, start, end in chunks(data):
        if kind == b"IHDR":
            header = data[start + 8 : end - 4]
        elif end - start - 12 <= _SHARED.get(kind, -1):
            shared += data[start:end]
        elif kind == b"fcTL":
            if control:
                yield _piece(header, control, partial(_file, data, (begin, start), shared))
            control, begin = data[start + 8 : end - 4], end
    if control:
        yield _piece(header, control, partial(_file, data, (begin, len(data)), shared))


def _piece(header: bytes, control: bytes, file: Callable[[bytes], bytes]) -> Piece:
    """Return a frame by its control chunk; ``file`` returns it as a PNG with the header given."""
    if len(control) == _CONTROL.size:
        width, height, left, top, numerator, denominator, disposal, blending = _CONTROL.unpack(control)
        whole_width, whole_height = struct.unpack_from(">2I", header)
        if 0 < width <= whole_width - left and 0 < height <= whole_height - top and disposal < len(_DISPOSALS):
            return Piece(
                (left, top, left + width, top + height),
                _DISPOSALS[disposal],
                blends=blending == 1,
                seconds=Fraction(numerator, denominator or _DEFAULT_DENOMINATOR),
                file=partial(file, control[4:12] + header[8:]),
            )
    raise MediaError(f"{DAMAGED[0]}; {DAMAGED[1]}")


def _file(data: bytes, place: tuple[int, int], shared: bytes, header: bytes) -> bytes:
    """Return the pixels in the chunks at ``place`` as a PNG."""
    pixels = []
    begin, stop = place
    for kind, start, end in chunks(data, begin, stop):
        pixels.append(_pixels_in(kind, data[start + 8 : end - 4]))
        begin = end
    pixels.append(_pixels_in(data[begin + 4 : begin + 8], data[begin + 8 : stop]))  # of a chunk that is cut off
    parts = (write_chunk(b"IHDR", header), shared, write_chunk(b"IDAT", b"".join(pixels)), write_chunk(b"IEND", b""))
    return _SIGNATURE + b"".join(parts)


def _pixels_in(kind: bytes, content: bytes) -> bytes:
    """Return the pixels in a chunk, which in those of further frames stand behind a number."""
    return {b"IDAT": content, b"fdAT": content[4:]}.get(kind, b"")
