"""A transformer with some of its layers exchanged: a view over the very weights, which leaves the transformer itself as it is."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import nn

from deployments.video.kernels.install import LinearGelu

Exchange = Callable[[nn.Module], nn.Module | None]


def with_layers(module: Any, exchange: Exchange) -> Any:
    """``module``, or a shallow copy of it in which ``exchange`` has put another for each layer that it gives one for."""
    other = exchange(module)
    if other is not None:
        return other
    children = {name: child if child is None else with_layers(child, exchange) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    if isinstance(module, LinearGelu):
        return _Gelu(children["proj"])
    changed = copy.copy(module)
    changed._modules = children
    return changed


class _Gelu(nn.Module):
    """``LinearGelu``, whose one kernel knows plain layers only."""

    def __init__(self, proj: Any) -> None:
        super().__init__()
        self.proj = proj

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.gelu(self.proj(x), approximate="tanh")
