"""Packets of MPEG-4 part 2 that hold no picture (N-VOPs).

Programs that record at a constant rate write one where a frame did not arrive in time. Players show
the frame before for longer.
"""

import re

_PICTURE = b"\0\0\1\xb6"
_LAYER = re.compile(rb"\x00\x00\x01[\x20-\x2f]")
_OWN_RATIO = 15
"""The aspect ratio whose numbers follow in the header."""
_BUFFER_BITS = 79
_GREYSCALE = 3
_HEADER_BYTES = 64
"""More bytes than the parts of a header that are read can have."""


class _Bits:
    """Reads numbers from bytes, bit by bit; behind their end it reads ones."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data[:_HEADER_BYTES].ljust(_HEADER_BYTES, b"\xff"), "big")
        self._left = 8 * _HEADER_BYTES

    def take(self, count: int) -> int:
        """Return the next ``count`` bits as a number."""
        self._left = max(0, self._left - count)
        return self._value >> self._left & ((1 << count) - 1)


class EmptyPictures:
    """Tells which packets of a track hold no picture; ``extradata`` is its codec's header."""

    def __init__(self, extradata: bytes) -> None:
        self._time_bits = 0
        self._owed = False
        """Whether a packet held two pictures (a packed bitstream), of which the next shows one."""
        self._read_header(extradata)

    def is_in(self, packet: bytes) -> bool:
        """Return whether the next packet of the track makes no frame."""
        self._read_header(packet)
        at = packet.find(_PICTURE)
        if at < 0 or not self._time_bits:
            return False
        if packet.find(_PICTURE, at + len(_PICTURE)) >= 0:
            self._owed = True
            return False
        bits = _Bits(packet[at + len(_PICTURE) :][:_HEADER_BYTES])
        bits.take(2)
        seconds = 0
        while bits.take(1) and seconds < _HEADER_BYTES:
            seconds += 1
        bits.take(1 + self._time_bits + 1)
        if bits.take(1):
            return False
        owed, self._owed = self._owed, False
        return not owed

    def _read_header(self, data: bytes) -> None:
        found = _LAYER.search(data)
        if found is None:
            return
        bits = _Bits(data[found.end() :][:_HEADER_BYTES])
        bits.take(9)
        version = 1
        if bits.take(1):
            version = bits.take(4)
            bits.take(3)
        if bits.take(4) == _OWN_RATIO:
            bits.take(16)
        if bits.take(1):
            bits.take(3)
            if bits.take(1):
                bits.take(_BUFFER_BITS)
        if bits.take(2) == _GREYSCALE and version != 1:
            bits.take(4)
        bits.take(1)
        self._time_bits = max(1, (bits.take(16) - 1).bit_length())
