"""A request's own view of a VAE: shared weights, private encode cache, and an encoder that can be stopped."""

import copy
from collections.abc import Callable
from typing import Any

import torch


class _StoppableEncoder(torch.nn.Module):
    """Calls ``check``, which may raise, before each group of frames."""

    def __init__(self, encoder: torch.nn.Module, check: Callable[[], None]) -> None:
        super().__init__()
        self.encoder = encoder
        self._check = check

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        self._check()
        return self.encoder(*args, **kwargs)


def private_view(vae: Any, check: Callable[[], None]) -> Any:
    """A view of ``vae`` for one request: its caches are not those of other requests, its weights are."""
    view = copy.copy(vae)  # shallow: plain attributes, the caches among them, are the view's own from their first assignment
    view._modules = dict(vae._modules)
    view._modules["encoder"] = _StoppableEncoder(vae.encoder, check)
    return view
