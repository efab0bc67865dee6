"""A training step as a CUDA graph: models as small as these keep a GPU busy only if no kernel is launched by hand."""

from collections.abc import Callable
from typing import Any

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
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None  # torch has no public name for its type

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
        if not inputs[0].is_cuda:
            return self._step(kind, *inputs)
        if self._stream is None:
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        if calls <= EAGER_STEPS:
            # On the capture's stream: autograd remembers it, and the usual stream cannot be captured.
            with torch.cuda.stream(self._stream):
                loss = self._step(kind, *inputs)
            torch.cuda.synchronize()
            return loss
        places = tuple(tensor.clone() for tensor in inputs)
        graph = torch.cuda.CUDAGraph()
        # One pool for all graphs: they run one after the other, and nothing of one is read after the next but its loss.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            loss = self._step(kind, *places)
        self._graphs[key] = (graph, places, loss)
        graph.replay()  # a capture computes nothing
        return loss.clone()
