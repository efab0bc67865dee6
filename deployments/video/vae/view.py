"""A request's view of a VAE: shared weights, a private encode cache and a stoppable encoder."""

import copy
from collections.abc import Callable
from typing import Any

import torch


class _StoppableEncoder(torch.nn.Module):
    """Calls ``check``, which may raise, before it encodes each group of frames."""

    def __init__(self, encoder: torch.nn.Module, check: Callable[[], None]) -> None:
        super().__init__()
        self.encoder = encoder
        self._check = check

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return self.encoder(*args, **kwargs)


def private_view(vae: Any, check: Callable[[], None]) -> Any:
    """Return a shallow copy of ``vae`` that shares the weights but not the caches.

    ``check`` is called before each group of frames that the copy encodes, and may raise.
    """
    view = copy.copy(vae)  # assigning an attribute, such as a cache, no longer changes the original
    view._modules = dict(vae._modules)
    view._modules["encoder"] = _StoppableEncoder(vae.encoder, check)
    return view
