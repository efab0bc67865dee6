"""An encoder that does not compute again what stays the same.

Image-to-video encodes one image and many equal frames after it. A causal layer sees its input and a
few frames before it: once these have stayed the same for long enough, so has its result, to the
bit, and the layer's caches hold what they held before. In the encoder of the VAE, most of the work
is done by the first layers, which see the fewest frames.
"""

import copy
from math import ceil
from typing import Any

import torch
from torch import nn

SEEN_BEFORE = 2
"""The frames before a group that a causal convolution sees."""
_LISTS, _SINGLE = ("down_blocks",), ("conv_in", "mid_block")


def resting_view(encoder: Any) -> Any:
    """Return a shallow copy of ``encoder`` for one request, whose layers rest.

    It must be called with the same tensor again, not an equal one, for groups that are equal.
    """
    view = copy.copy(encoder)
    view._modules = dict(encoder._modules)
    for name in _SINGLE:
        if name in view._modules:
            view._modules[name] = _Resting(view._modules[name])
    for name in _LISTS:
        if name in view._modules:
            view._modules[name] = nn.ModuleList(_Resting(module) for module in view._modules[name])
    return view


class _Resting(nn.Module):
    """Returns the last result again once another call could only repeat it.

    The module gets frames ``[1, c, t, h, w]``, and moves ``feat_idx`` on by one for each of its
    causal convolutions; one without ``feat_idx`` is such a convolution itself.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self._input: torch.Tensor | None = None
        self._result: torch.Tensor | None = None
        self._calls = 0
        """Calls in a row with this input, apart from the first."""
        self._convolutions = 0
        self._memory = 0
        """Calls with the same input after which the result stays the same."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Return what the module returns."""
        index = kwargs.get("feat_idx")
        self._calls = self._calls + 1 if x is self._input else 0
        self._input = x
        if self._result is not None and self._calls > self._memory:
            if index is not None:
                index[0] += self._convolutions
            return self._result
        begin = 0 if index is None else index[0]
        result: torch.Tensor = self.module(x, *args, **kwargs)
        self._convolutions = 1 if index is None else index[0] - begin
        # Where a group is a single frame, a convolution sees the two groups before it.
        self._memory = self._convolutions * ceil(SEEN_BEFORE / min(x.shape[2], result.shape[2]))
        self._result = result if self._calls >= self._memory else None
        return result
