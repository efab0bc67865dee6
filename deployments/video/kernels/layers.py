"""Copies of a model in which some layers are replaced."""

import copy
from collections.abc import Callable
from typing import Any

from torch import nn

from deployments.video.kernels.linear_gelu import LinearGelu, LinearThenGelu

ReplaceLayer = Callable[[nn.Module], nn.Module | None]
"""Returns the module to use instead of a module, or None to keep it."""


def with_layers(module: Any, replace: ReplaceLayer) -> Any:
    """Return a shallow copy of ``module`` with the layers that ``replace`` returns.

    The copy shares the weights of all other layers, and the original is unchanged. If nothing is
    replaced, the result is ``module`` itself.
    """
    replacement = replace(module)
    if replacement is not None:
        return replacement
    children = {name: child if child is None else with_layers(child, replace) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    if isinstance(module, LinearGelu):  # its single kernel needs a plain linear layer
        return LinearThenGelu(children["proj"])
    changed = copy.copy(module)
    changed._modules = children
    return changed
