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
_HALF = _STATES // 2
"""A state is the last 8 bits. The states numbered k and k + _HALF are followed by 2k and 2k + 1."""


def encode(messages: Bits) -> Symbols:
    """Return the symbols ``[..., CODE_BITS]`` of messages ``[..., MESSAGE_BITS]``."""
    ages = [np.roll(messages, age, axis=-1).astype(np.intp) << age for age in range(_MEMORY + 1)]
    symbols: Symbols = _OUTPUTS[np.sum(ages, axis=0)].reshape(*messages.shape[:-1], CODE_BITS)
    return symbols


def decode(measured: Symbols) -> Bits:
    """Return the most likely messages ``[n, MESSAGE_BITS]`` of noisy symbols ``[n, CODE_BITS]``.

    In the worst noise, it may return another message than the most likely one.
    """
    steps = list(_steps(measured))
    bits = _best_paths(np.zeros((_STATES, len(measured)), np.float32), steps * _LAPS)
    return bits[:, MESSAGE_BITS:-MESSAGE_BITS]


def decode_closely(measured: Symbols) -> Bits:
    """Return messages ``[states, MESSAGE_BITS]`` that noisy symbols ``[CODE_BITS]`` may mean.

    There is the most likely one of those that begin and end in each state, and so the most likely
    one of all. It takes as long as ``decode`` for a hundred times as many symbols.
    """
    states = np.arange(_STATES)
    begin = np.full((_STATES, _STATES), -np.inf, np.float32)
    begin[states, states] = 0
    return _best_paths(begin, list(_steps(measured[None])), states)


def _steps(measured: Symbols) -> npt.NDArray[np.float32]:
    """Return the merit ``[MESSAGE_BITS, _HALF, 2, n]`` of each state after a step from a low one.

    From the high one, it is the opposite: all generators have the oldest bit.
    """
    symbols = measured.reshape(len(measured), MESSAGE_BITS, RATE).transpose(1, 2, 0)
    return (_OUTPUTS[:_STATES] @ symbols).reshape(MESSAGE_BITS, _HALF, 2, len(measured))


def _best_paths(
    metric: npt.NDArray[np.float32], steps: Sequence[npt.NDArray[np.float32]], end: npt.NDArray[np.intp] | None = None
) -> Bits:
    """Return the bits of the best paths from states of merit ``metric`` to ``end``, or to any.

    ``metric`` is ``[states, n]``: paths lie side by side in memory, which is quicker.
    """
    choices = []
    for step in steps:
        low = metric[:_HALF, None] + step
        high = metric[_HALF:, None] - step
        choices.append((high > low).reshape(metric.shape))
        metric = np.maximum(low, high, out=low).reshape(metric.shape)
    state, paths = metric.argmax(axis=0) if end is None else end, np.arange(metric.shape[1])
    bits = np.empty((len(paths), len(choices)), np.uint8)
    for at in reversed(range(len(choices))):
        bits[:, at] = state & 1
        state = (state + _STATES * choices[at][state, paths]) >> 1
    return bits
