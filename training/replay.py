"""Runs a training step as a CUDA graph.

Models as small as these keep a GPU busy only if Python launches no single kernels.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

EAGER_STEPS = 3
"""The number of steps before the capture, in which compilers, libraries and the optimizer allocate
their state."""


class Replay:
    """Calls ``step`` with tensors; on a GPU, the fourth call with a kind and shapes is captured.

    Later calls of that kind replay the capture. ``step`` must do a whole step (forward, backward,
    optimizer), must not read values on the CPU, and returns the loss.
    """

    def __init__(self, step: Callable[..., Tensor]) -> None:
        self._step = step
        self._calls: dict[object, int] = {}
        self._graphs: dict[object, tuple[torch.cuda.CUDAGraph, tuple[Tensor, ...], Tensor]] = {}
        self._stream: torch.cuda.Stream | None = None
        self._pool: Any = None  # torch has no public name for its type

    def __call__(self, kind: str, *inputs: Tensor) -> Tensor:
        """Run one step and return its loss."""
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
            # Autograd remembers the stream, and the default one cannot be captured.
            with torch.cuda.stream(self._stream):
                loss = self._step(kind, *inputs)
            torch.cuda.synchronize()
            return loss
        places = tuple(tensor.clone() for tensor in inputs)
        graph = torch.cuda.CUDAGraph()
        # All graphs share one pool: they run one after the other, and only the loss of one is read
        # after the next.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
            loss = self._step(kind, *places)
        self._graphs[key] = (graph, places, loss)
        graph.replay()  # a capture does not compute
        return loss.clone()
