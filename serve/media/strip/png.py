"""Removal of needless metadata from PNG files."""

import struct
import zlib
from collections.abc import Iterator

from PIL import PngImagePlugin

from serve.media.colour.matrix_profile import profile_by_chromaticities, profile_by_numbers
from serve.media.strip.exif import read_orientation, write_orientation

_SIGNATURE_BYTES = 8
_ANIMATION = {b"acTL", b"fcTL", b"fdAT"}
_COLOUR = {b"cICP", b"iCCP", b"sRGB", b"gAMA", b"cHRM"}
_GREY = (0, 4)
"""The kinds of pictures without colours, by their numbers in the header."""
_UNIT = 100_000
"""What stands for 1 in the chunks gAMA and cHRM."""
MAX_PROFILE_BYTES = 8 * 2**20
"""The largest colour profile that is used. Profiles of printers have up to 3 MB."""

# Pillow refuses a file for a profile of more than 1 MB. Here it sees only one that was checked.
PngImagePlugin.MAX_TEXT_CHUNK = MAX_PROFILE_BYTES


def strip_png(data: bytes) -> bytes:
    """Return the PNG file ``data`` with the chunks that decide how it looks, and without others.

    As in libpng, a checksum counts for the chunks that hold the picture; any other chunk whose
    checksum or length is wrong is left out. What follows the end is left out as well. If one chunk
    of an animation is wrong, all of them are left out, as browsers do; then it is a still picture.
    """
    kept = [data[:_SIGNATURE_BYTES]]
    animation = _Animation()
    orientation, colour_type = 1, -1
    colour: dict[bytes, bytes] = {}
    behind = _SIGNATURE_BYTES
    for kind, start, end in chunks(data):
        content = data[start + 8 : end - 4]
        if kind == b"IEND":
            rest = write_chunk(b"IEND", b"")
            if not animation.is_whole():
                kept = [piece for piece in kept if piece[4:8] not in _ANIMATION]
            break
        if kind == b"IHDR" and len(content) == 13:
            colour_type = content[9]
            animation.size = struct.unpack_from(">II", content)
        if kind in _ANIMATION:
            animation.add(kind, content if _has_right_sum(data[start:end]) else b"")
        if kind in _ANIMATION or not kind[0] & 0x20:  # a small first letter marks a chunk to ignore
            kept.append(data[start:end])
        elif _has_right_sum(data[start:end]):
            if kind == b"tRNS" and _is_transparency(content, colour_type):
                kept.append(data[start:end])
            elif kind == b"eXIf":
                orientation = read_orientation(content)
            elif kind in _COLOUR:
                colour.setdefault(kind, content)
        behind = end
    else:
        rest = data[behind:]
    profile = _profile_of(colour, grey=colour_type in _GREY)
    first = [write_chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile, 1))] if profile else []
    # The orientation goes behind the header, since it may have stood behind the pixels.
    return b"".join([*kept[:2], *first, *_orientation_chunk(orientation), *kept[2:], rest])


def chunks(data: bytes, at: int = _SIGNATURE_BYTES, stop: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind of each chunk of a PNG file, and where the chunk begins and ends.

    They are those between ``at`` and ``stop``, by default all. A chunk that is cut off is left out.
    """
    stop = len(data) if stop is None else stop
    while at + 12 <= stop:
        (length,) = struct.unpack_from(">I", data, at)
        end = at + 12 + length
        if end > stop:
            return
        yield data[at + 4 : at + 8], at, end
        at = end


def write_chunk(kind: bytes, content: bytes) -> bytes:
    """Return a chunk with its length and its checksum."""
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


class _Animation:
    """Checks the chunks of an animation (APNG), which the third edition of the standard has."""

    def __init__(self) -> None:
        self.size = (0, 0)
        """The width and the height of the picture."""
        self._frames: int | None = None
        self._controls = 0
        self._next = 0
        self._is_right = True

    def add(self, kind: bytes, content: bytes) -> None:
        """Check the next chunk of the animation; ``content`` is empty if its checksum is wrong."""
        if kind == b"acTL":
            self._is_right &= len(content) == 8 and self._frames is None and self._next == 0
            self._frames = int.from_bytes(content[:4], "big")
            return
        number, self._next = int.from_bytes(content[:4], "big"), self._next + 1
        self._is_right &= self._frames is not None and number == self._next - 1
        if kind == b"fdAT":
            self._is_right &= len(content) > 4
            return
        self._controls += 1
        if len(content) != 26:
            self._is_right = False
            return
        width, height, left, top = struct.unpack_from(">4I", content, 4)
        whole_width, whole_height = self.size
        self._is_right &= 0 < width <= whole_width - left and 0 < height <= whole_height - top
        self._is_right &= content[24] <= 2 and content[25] <= 1  # how a frame is disposed of, and blended

    def is_whole(self) -> bool:
        """Return whether there is none, or all chunks of one are there."""
        return self._is_right and self._controls == (self._frames or 0)


def _has_right_sum(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]).to_bytes(4, "big") == chunk[-4:]


def _orientation_chunk(orientation: int) -> list[bytes]:
    return [] if orientation == 1 else [write_chunk(b"eXIf", write_orientation(orientation))]


def _profile_of(colour: dict[bytes, bytes], *, grey: bool) -> bytes:
    """Return the profile that stands for these chunks, or nothing for sRGB.

    The first one counts that can be used, in the order of the third edition of the specification.
    """
    if len(numbers := colour.get(b"cICP", b"")) == 4 and numbers[2] == 0:
        return profile_by_numbers(numbers[0], numbers[1], grey=grey)
    if profile := _read_profile(colour.get(b"iCCP", b"")):
        return profile
    if len(colour.get(b"sRGB", b"")) == 1:
        return b""
    value = colour.get(b"gAMA", b"")
    gamma = (int.from_bytes(value, "big") / _UNIT or None) if len(value) == 4 else None
    points = colour.get(b"cHRM", b"")
    if len(points) != 32:
        return b"" if gamma is None else profile_by_chromaticities(gamma, grey=grey)
    white, *primaries = [(x / _UNIT, y / _UNIT) for x, y in struct.iter_unpack(">II", points)]
    return profile_by_chromaticities(gamma, primaries, white, grey=grey)


def _is_transparency(content: bytes, colour_type: int) -> bool:
    """Return whether a tRNS chunk has the length that its kind of image needs."""
    return {0: len(content) == 2, 2: len(content) == 6, 3: 1 <= len(content) <= 256}.get(colour_type, False)


def _read_profile(content: bytes) -> bytes:
    """Return the colour profile in an iCCP chunk, or nothing if it is damaged or too large."""
    _, _, rest = content.partition(b"\0")
    try:
        inflate = zlib.decompressobj()
        profile = inflate.decompress(rest[1:], MAX_PROFILE_BYTES)
    except zlib.error:
        return b""
    return profile if inflate.eof else b""
