"""Runs of an onnxruntime session as CUDA graphs: one launch instead of hundreds.

A busy Python interpreter would delay hundreds of launches. onnxruntime has rules for them (see
`enable_cuda_graph` in its documentation), which are kept as follows:

- A graph has one shape of inputs, so batches are padded to the sizes that were captured.
- It always reads and writes the same memory, so inputs are copied there.
- It belongs to the thread that captured it, so each session has a thread of its own.
- During a capture nothing else in the process may allocate GPU memory, so all graphs are captured
  before the engine takes work.
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
"""Two runs that allocate all memory that the graph needs, one that is captured, one that is
replayed."""

NUMPY_TYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(int64)": np.int64,
    "tensor(uint8)": np.uint8,
}
"""NumPy types by onnxruntime's names."""


class Session(Protocol):
    """The part of an onnxruntime session that the engine uses."""

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Return the named outputs, or all of them, for inputs by name."""

    def get_inputs(self) -> Sequence[Any]:
        """Return name, shape and type of each input."""

    def get_outputs(self) -> Sequence[Any]:
        """Return name, shape and type of each output."""


@dataclass(frozen=True, slots=True)
class _Captured:
    """One graph, with the inputs and outputs at their fixed places on the GPU."""

    inputs: dict[str, Any]
    outputs: dict[str, Any]
    binding: Any
    options: onnxruntime.RunOptions


class CapturedSession:
    """A session that was opened with ``enable_cuda_graph``.

    Several threads may use it; their runs follow one another. Inputs and outputs stay where
    the session runs. All other attributes are those of the session.
    """

    def __init__(self, session: Any) -> None:
        self._session = session
        self._device = "cpu" if session.get_providers()[0] == "CPUExecutionProvider" else "cuda"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cuda-graph")
        self._graphs: dict[_Shape, _Captured] = {}
        self._sizes: list[int] = []
        inputs = session.get_inputs()
        self._types = {value.name: NUMPY_TYPES[value.type] for value in inputs}
        self._batched = [value.name for value in inputs if value.shape and not isinstance(value.shape[0], int)]
        self._outputs = [value.name for value in session.get_outputs()]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def capture(self, sizes: Sequence[int]) -> None:
        """Capture a graph for each of the batch ``sizes``, or one if the first dimension is fixed.

        Stops at the first size that fails. Raises ValueError if another dimension is variable, and
        the error of onnxruntime if not even one graph can be captured.
        """
        inputs = self._session.get_inputs()
        if any(not isinstance(side, int) for value in inputs for side in value.shape[1:]):
            raise ValueError(f"the inputs have no fixed shape: {[value.shape for value in inputs]}")
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
            except Exception as e:  # onnxruntime raises one type per status code
                if not self._graphs:
                    raise
                self._sizes = [captured for captured in self._sizes if captured < size]
                _log.warning("cannot capture a CUDA graph of %d rows; such batches run node by node: %s", size, e)
                return

    def run(self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any]) -> list[Any]:
        """Return the outputs, as ``onnxruntime.InferenceSession.run`` does."""
        return self._thread.submit(self._run, output_names, input_feed).result()

    def _capture(self, feeds: dict[str, Any]) -> None:
        results = self._session.run(None, feeds, _run_options(_UNCAPTURED))
        inputs = {name: onnxruntime.OrtValue.ortvalue_from_numpy(value, self._device, 0) for name, value in feeds.items()}
        outputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(value, self._device, 0)
            for name, value in zip(self._outputs, results, strict=True)
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
        self._graphs[_shape_of(feeds)] = _Captured(inputs=inputs, outputs=outputs, binding=binding, options=options)

    def _run(self, output_names: Sequence[str] | None, feeds: Mapping[str, Any]) -> list[Any]:
        count = len(feeds[self._batched[0]]) if self._batched else 1
        size = next((size for size in self._sizes if size >= count), count)
        padded = {name: _padded(value, size) if name in self._batched else value for name, value in feeds.items()}
        graph = self._graphs.get(_shape_of(padded))
        if graph is None:
            uncaptured: list[Any] = self._session.run(output_names, feeds, _run_options(_UNCAPTURED))
            return uncaptured
        for name, value in padded.items():
            graph.inputs[name].update_inplace(np.ascontiguousarray(value, self._types[name]))
        self._session.run_with_iobinding(graph.binding, graph.options)
        graph.binding.synchronize_outputs()
        results = (graph.outputs[name].numpy() for name in output_names or self._outputs)
        # On the CPU these arrays are the graph's own memory, which the next run overwrites.
        return [np.array(result[:count] if size > count else result) for result in results]


def _run_options(graph: str) -> onnxruntime.RunOptions:
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("gpu_graph_id", graph)
    return options


def _shape_of(feeds: Mapping[str, Any]) -> _Shape:
    return tuple(feeds[name].shape for name in sorted(feeds))


def _padded(value: Any, size: int) -> Any:
    """Append rows of zeros up to ``size`` rows."""
    missing = size - len(value)
    return np.concatenate([value, np.zeros((missing, *value.shape[1:]), value.dtype)]) if missing else value
