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
        bits = _bits(self.key_id << REQUEST_BITS | self.request, PAYLOAD_BITS)
        return np.concatenate([bits, _check(bits)])

    @classmethod
    def read(cls, message: Bits) -> "Payload | None":
        """Return what a message says, or None if its checksum is wrong."""
        if not is_valid(message):
            return None
        value = int("".join(map(str, message[:PAYLOAD_BITS])), 2)
        return cls(value >> REQUEST_BITS, value & (1 << REQUEST_BITS) - 1)


def is_valid(messages: Bits) -> npt.NDArray[np.bool_]:
    """Return of messages ``[..., MESSAGE_BITS]`` whether the checksum of each is right."""
    right: npt.NDArray[np.bool_] = (_check(messages[..., :PAYLOAD_BITS]) == messages[..., PAYLOAD_BITS:]).all(axis=-1)
    return right


def _bits(value: int, count: int) -> Bits:
    return np.array([value >> shift & 1 for shift in reversed(range(count))], np.uint8)


def _check(bits: Bits) -> Bits:
    """Return the bits of the CRC-8 (polynomial 0x2F, that of AUTOSAR) of payloads' bits."""
    register: Bits = np.full(bits.shape[:-1], _CHECK_OF_ZERO, np.uint8)
    for at in range(PAYLOAD_BITS):
        register = register ^ bits[..., at] << np.uint8(CHECK_BITS - 1)
        register = register << np.uint8(1) ^ np.where(register & 0x80, np.uint8(_POLYNOMIAL), np.uint8(0))
    return np.unpackbits(register[..., None], axis=-1)
