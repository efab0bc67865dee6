"""Runs of an onnxruntime session as CUDA graphs: one launch in place of hundreds, which a busy interpreter would be late with.

Rules of onnxruntime's (its documentation of `enable_cuda_graph`) and how they are kept: a graph is of one shape of inputs, so batches are
filled up to the sizes that were captured; it reads and writes always the same memory, so inputs are copied there; it belongs to the
thread that captured it, so each session has a thread of its own; and while one is captured, nothing else in the process may allocate
memory on the GPU, so all are captured before the engine takes work.
"""

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
import onnxruntime

_Shape: TypeAlias = tuple[tuple[int, ...], ...]
_UNCAPTURED = "-1"
_log = logging.getLogger(__name__)
_RUNS = 4
"""Two that bring up all memory that the graph needs, one that is captured, one that is replayed."""


class Session(Protocol):
    """What the engine uses of an onnxruntime session."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Inputs by name -> the outputs named, or all."""

    def get_inputs(self) -> Sequence[Any]:
        """Names, shapes and types."""

    def get_outputs(self) -> Sequence[Any]:
        """Names, shapes and types."""


@dataclass(frozen=True, slots=True)
class _Captured:
    """Inputs and outputs of one graph, at their places on the GPU."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    binding: Any
    options: onnxruntime.RunOptions


class CapturedSession:
    """A session that was opened with ``enable_cuda_graph``. Several threads may use it; their runs follow each other.

    ``device`` is where inputs and outputs stay. What is not said here is the session's.
    """

    def __init__(self, session: Any, device: str = "cuda") -> None:
        self._session = session
        self._device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cuda-graph")
        self._graphs: dict[_Shape, _Captured] = {}
        self._sizes: list[int] = []
        inputs = session.get_inputs()
        self._types = {value.name: TYPES[value.type] for value in inputs}
        self._batched = [value.name for value in inputs if value.shape and not isinstance(value.shape[0], int)]
        self._outputs = [value.name for value in session.get_outputs()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def capture(self, sizes: Sequence[int]) -> None:
        """Captures a graph for each of ``sizes`` of the first dimension where it is open, up to the first that fails, else one.

        Raises ValueError if another dimension is open, and what onnxruntime raises where the model cannot be captured.
        """
        inputs = self._session.get_inputs()
        if any(not isinstance(side, int) for value in inputs for side in value.shape[1:]):
            raise ValueError(f"inputs of no fixed shape: {[value.shape for value in inputs]}")
        self._sizes = sorted(sizes) if self._batched else []
        for size in self._sizes or (1,):
            feeds = {
                value.name: np.zeros(
                    (size, *value.shape[1:]) if value.name in self._batched else value.shape, self._types[value.name]
                )
                for value in inputs
            }
            try:
                self._thread.submit(self._capture, feeds).result()
            except Exception as e:  # onnxruntime raises types of its own, one a status code
                if not self._graphs:
                    raise
                self._sizes = [captured for captured in self._sizes if captured < size]
                _log.warning("no CUDA graph of %d rows, which run node by node where they are asked for: %s", size, e)
                return

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """See onnxruntime.InferenceSession.run."""
        return self._thread.submit(self._run, output_names, input_feed).result()

    def _capture(self, feeds: dict[str, Any]) -> None:
        made = self._session.run(None, feeds, _run_options(_UNCAPTURED))
        inputs = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value, self._device, 0) for name, value in feeds.items()}
        outputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value, self._device, 0)
            for name, value in zip(self._outputs, made, strict=True)
        }
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        options = _run_options(str(len(self._graphs) + 1))
        for _ in range(_RUNS):
            self._session.run_with_iobinding(binding, options)
        binding.synchronize_outputs()
        self._graphs[_shape_of(feeds)] = _Captured(inputs, outputs, binding, options)

    def _run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        count = len(feeds[self._batched[0]]) if self._batched else 1
        size = next((size for size in self._sizes if size >= count), count)
        filled = {name: _filled(value, size) if name in self._batched else value for name, value in feeds.items()}
        graph = self._graphs.get(_shape_of(filled))
        if graph is None:
            made: list[Any] = self._session.run(output_names, feeds, _run_options(_UNCAPTURED))
            return made
        for name, value in filled.items():
            graph.inputs[name].update_inplace(np.ascontiguousarray(value, self._types[name]))
        self._session.run_with_iobinding(graph.binding, graph.options)
        graph.binding.synchronize_outputs()
        results = (graph.outputs[name].numpy() for name in output_names or self._outputs)
        # On the CPU these are the graph's own memory, which the next run writes to.
        return [np.array(result[:count] if size > count else result) for result in results]


TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
"""NumPy's types by onnxruntime's names."""


def _run_options(graph: str) -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph)
    return options


def _shape_of(feeds: Mapping[str, Any]) -> _Shape:
    return tuple(feeds[name].shape for name in sorted(feeds))


def _filled(value: Any, size: int) -> Any:
    """As many rows more as are missing, of zeros."""
    missing = size - len(value)
    return np.concatenate([value, np.zeros((missing, *value.shape[1:]), value.dtype)]) if missing else value
