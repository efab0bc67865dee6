"""What a watermark says: 32 bits, with a checksum."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KEY_BITS = 4
REQUEST_BITS = 28
PAYLOAD_BITS = KEY_BITS + REQUEST_BITS
CHECK_BITS = 8
MESSAGE_BITS = PAYLOAD_BITS + CHECK_BITS
_POLYNOMIAL = 0x2F
_CHECK_OF_ZERO = 0x5A
"""A checksum of zero bits that is not zero, so that the message of zeros is not valid."""

Bits = npt.NDArray[np.uint8]
"""Bits ``[n]``, each 0 or 1, the most significant one first."""


@dataclass(frozen=True)
class Payload:
    """Who made something, ``key_id``, and for which request, in the numbering of that maker's log.

    ``key_id`` has 4 bits and ``request`` 28; anything else raises ValueError.
    """

    key_id: int
    request: int

    def __post_init__(self) -> None:
        if not 0 <= self.key_id < 1 << KEY_BITS:
            raise ValueError(f"the key's number is {self.key_id}; it must be from 0 to {(1 << KEY_BITS) - 1}")
        if not 0 <= self.request < 1 << REQUEST_BITS:
            raise ValueError(f"the request's number is {self.request}; it must be from 0 to {(1 << REQUEST_BITS) - 1}")

    def __str__(self) -> str:
        """Return both numbers in hexadecimal, as logs and reports have them."""
        return f"{self.key_id:x}-{self.request:07x}"

    @property
    def message(self) -> Bits:
        """The payload's bits and their checksum."""
        value = self.key_id << REQUEST_BITS | self.request
        return _bits(value << CHECK_BITS | _check(value), MESSAGE_BITS)

    @classmethod
    def read(cls, message: Bits) -> "Payload | None":
        """Return what a message says, or None if its checksum is wrong."""
        value = int("".join(map(str, message)), 2)
        payload, check = value >> CHECK_BITS, value & (1 << CHECK_BITS) - 1
        if check != _check(payload):
            return None
        return cls(payload >> REQUEST_BITS, payload & (1 << REQUEST_BITS) - 1)


def _bits(value: int, count: int) -> Bits:
    return np.array([value >> shift & 1 for shift in reversed(range(count))], np.uint8)


def _check(value: int) -> int:
    """Return the CRC-8 (polynomial 0x2F, that of AUTOSAR) of a payload's bits."""
    register = _CHECK_OF_ZERO
    for bit in _bits(value, PAYLOAD_BITS):
        register ^= int(bit) << CHECK_BITS - 1
        register = (register << 1 ^ (_POLYNOMIAL if register & 0x80 else 0)) & 0xFF
    return register
