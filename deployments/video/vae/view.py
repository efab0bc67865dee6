"""A request's view of a VAE: shared weights, a private encode cache and a stoppable encoder."""

import copy
from collections.abc import Callable
from typing import Any

import torch

from deployments.video.vae.resting import resting_view


class _StoppableEncoder(torch.nn.Module):
    """Calls ``check``, which may raise, before it encodes each group of frames.

    The encoder gets the same tensor again for a group that is equal to the one before.
    """

    def __init__(self, encoder: torch.nn.Module, check: Callable[[], None]) -> None:
        super().__init__()
        self.encoder = encoder
        self._check = check
        self._last: torch.Tensor | None = None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        self._check()
        caches = kwargs.get("feat_cache")
        follows = self._last is not None and caches is not None and caches[0] is not None
        if not follows or self._last is None or x.shape != self._last.shape or not torch.equal(x, self._last):
            self._last = x
        return self.encoder(self._last, *args, **kwargs)


def private_view(vae: Any, check: Callable[[], None]) -> Any:
    """Return a shallow copy of ``vae`` that shares the weights but not the caches.

    ``check`` is called before each group of frames that the copy encodes, and may raise.
    """
    view = copy.copy(vae)  # assigning an attribute, such as a cache, no longer changes the original
    view._modules = dict(vae._modules)
    view._modules["encoder"] = _StoppableEncoder(resting_view(vae.encoder), check)
    return view
