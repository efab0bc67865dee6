"""A training step as a CUDA graph: models as small as these keep a GPU busy only if no kernel is launched by hand."""

from collections.abc import Callable

import torch
from torch import Tensor

EAGER_STEPS = 3
"""Steps that run by hand before the capture: compilers, libraries and the optimizer's state settle in them."""


class Replay:
    """Calls ``step`` with tensors of any shapes; on a GPU, the fourth call of a kind and shape is captured and then replayed.

    ``step`` must be whole (forward, backward, optimizer), must not look at values on the CPU, and returns the loss.
    """

    def __init__(self, step: Callable[..., Tensor]) -> None:
        self._step = step
        self._calls: dict[object, int] = {}
        self._graphs: dict[object, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}

    def __call__(self, kind: str, *inputs: Tensor) -> Tensor:
        """The loss of one step."""
        key = (kind, tuple(tuple(tensor.shape) for tensor in inputs))
        if key in self._graphs:
            graph, places, loss = self._graphs[key]
            for place, tensor in zip(places, inputs, strict=True):
                place.copy_(tensor)
            graph.replay()
            return loss.clone()
        calls = self._calls[key] = self._calls.get(key, 0) + 1
        if not inputs[0].is_cuda or calls <= EAGER_STEPS:
            return self._step(kind, *inputs)
        torch.cuda.synchronize()
        places = tuple(tensor.clone() for tensor in inputs)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = self._step(kind, *places)
        self._graphs[key] = (graph, places, loss)
        graph.replay()  # a capture computes nothing
        return loss.clone()
