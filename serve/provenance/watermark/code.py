"""The error-correcting code: a tail-biting convolutional code of rate 1/4, decoded by Viterbi.

The generators are those of 3GPP2 C.S0002 (constraint length 9, free distance 24). Tail-biting (Ma
and Wolf, *On tail biting convolutional codes*, 1986) spends no bits on a known final state.
"""

import numpy as np
import numpy.typing as npt

from serve.provenance.watermark.payload import MESSAGE_BITS, Bits

_GENERATORS = (0o765, 0o671, 0o513, 0o473)
RATE = len(_GENERATORS)
CODE_BITS = MESSAGE_BITS * RATE
_MEMORY = 8
_STATES = 1 << _MEMORY
_LAPS = 3
"""How often the decoder goes round the circular trellis; the middle lap is read."""

Symbols = npt.NDArray[np.float32]
"""Coded bits ``[..., CODE_BITS]`` as +1 for 0 and -1 for 1, or noisy measurements of them."""


def _outputs() -> npt.NDArray[np.float32]:
    """Return the symbols ``[2 * states, rate]`` for each content of the shift register."""
    ones = [[(register & generator).bit_count() for generator in _GENERATORS] for register in range(2 * _STATES)]
    return (1 - 2 * (np.array(ones) & 1)).astype(np.float32)


_OUTPUTS = _outputs()
_REGISTERS = np.arange(2 * _STATES)
_FROM_LOW, _FROM_HIGH = _REGISTERS[:_STATES] >> 1, _REGISTERS[_STATES:] >> 1


def encode(message: Bits) -> Symbols:
    """Return the symbols of a message of ``MESSAGE_BITS`` bits."""
    register = 0
    for bit in message[-_MEMORY:]:
        register = register << 1 | int(bit)
    symbols = []
    for bit in message:
        register = (register << 1 | int(bit)) & 2 * _STATES - 1
        symbols.append(_OUTPUTS[register])
    return np.concatenate(symbols)


def decode(measured: Symbols) -> Bits:
    """Return the most likely messages ``[n, MESSAGE_BITS]`` of noisy symbols ``[n, CODE_BITS]``."""
    count = len(measured)
    steps = measured.reshape(count, MESSAGE_BITS, RATE) @ _OUTPUTS.T
    metric = np.zeros((count, _STATES), np.float32)
    choices = []
    for _ in range(_LAPS):
        for step in range(MESSAGE_BITS):
            low = metric[:, _FROM_LOW] + steps[:, step, :_STATES]
            high = metric[:, _FROM_HIGH] + steps[:, step, _STATES:]
            choices.append(high > low)
            metric = np.maximum(low, high)
    state, rows = metric.argmax(axis=1), np.arange(count)
    bits = np.empty((count, len(choices)), np.uint8)
    for at in reversed(range(len(choices))):
        bits[:, at] = state & 1
        state = (state + _STATES * choices[at][rows, state]) >> 1
    return bits[:, MESSAGE_BITS:-MESSAGE_BITS]
