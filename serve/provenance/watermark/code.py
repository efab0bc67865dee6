"""The error-correcting code: a tail-biting convolutional code of rate 1/4, decoded by Viterbi.

The generators are those of 3GPP2 C.S0002 (constraint length 9, free distance 24). Tail-biting (Ma
and Wolf, *On tail biting convolutional codes*, 1986) spends no bits on a known final state.
"""

from collections.abc import Sequence

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
    """Return the most likely messages ``[n, MESSAGE_BITS]`` of noisy symbols ``[n, CODE_BITS]``.

    In the worst noise, it may return another message than the most likely one.
    """
    steps = _steps(measured)
    bits = _best_paths(np.zeros((len(steps), _STATES), np.float32), [steps[:, at] for at in range(MESSAGE_BITS)] * _LAPS)
    return bits[:, MESSAGE_BITS:-MESSAGE_BITS]


def decode_closely(measured: Symbols) -> Bits:
    """Return messages ``[states, MESSAGE_BITS]`` that noisy symbols ``[CODE_BITS]`` may mean.

    There is the most likely one of those that begin and end in each state, and so the most likely
    one of all. It takes as long as ``decode`` for a hundred times as many symbols.
    """
    steps, states = _steps(measured[None]), np.arange(_STATES)
    begin = np.full((_STATES, _STATES), -np.inf, np.float32)
    begin[states, states] = 0
    return _best_paths(begin, [steps[:, at] for at in range(MESSAGE_BITS)], states)


def _steps(measured: Symbols) -> npt.NDArray[np.float32]:
    """Return the merit ``[n, MESSAGE_BITS, 2 * states]`` of each content of the shift register."""
    return measured.reshape(len(measured), MESSAGE_BITS, RATE) @ _OUTPUTS.T


def _best_paths(
    metric: npt.NDArray[np.float32], steps: Sequence[npt.NDArray[np.float32]], end: npt.NDArray[np.intp] | None = None
) -> Bits:
    """Return the bits of the best paths from states of merit ``metric`` to ``end``, or to any."""
    choices = []
    for step in steps:
        low = metric[:, _FROM_LOW] + step[:, :_STATES]
        high = metric[:, _FROM_HIGH] + step[:, _STATES:]
        choices.append(high > low)
        metric = np.maximum(low, high)
    state, rows = metric.argmax(axis=1) if end is None else end, np.arange(len(metric))
    bits = np.empty((len(metric), len(choices)), np.uint8)
    for at in reversed(range(len(choices))):
        bits[:, at] = state & 1
        state = (state + _STATES * choices[at][rows, state]) >> 1
    return bits
