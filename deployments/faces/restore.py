"""Restores the detail of a swapped face: GFPGAN or CodeFormer, as ONNX graphs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deployments.errors import CheckpointRefused
from deployments.faces.batch import batch_of
from deployments.faces.onnx import open_session, read_model, take_pixels
from deployments.settings import FaceSettings
from deployments.wire import Image

SIZE = 512


class Restorer(Protocol):
    """Sharpens an aligned face."""

    name: str
    """What `X-Face-Restorer` says."""

    def restore(self, faces: Sequence[Image], codeformer_weight: float, check: Callable[[], None]) -> list[Image]:
        """uint8 RGB faces of 512 x 512 pixels, aligned to FFHQ's template -> the same, restored. ``check`` may raise."""


class OnnxRestorer:
    """A graph [n, 3, 512, 512] -> [n, 3, 512, 512] in -1..1; CodeFormer's has its fidelity weight as a second input.

    Faces go through it together if its first dimension is open and that is true; GFPGAN's convolutions, whose weights the face
    itself makes, are exported for one.
    """

    def __init__(self, name: str, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        self.name = name
        model = read_model(path)
        shape = [side.dim_value or side.dim_param or None for side in model.graph.input[0].type.tensor_type.shape.dim]
        if shape[1:] != [3, SIZE, SIZE]:
            raise CheckpointRefused(f"{path}: input {shape}; a face restorer takes [1, 3, {SIZE}, {SIZE}]")
        self._session = open_session(path, settings, use_cuda, take_pixels(model))
        inputs = self._session.get_inputs()  # bound by index: exports do not agree on names
        if (name == "codeformer") != (len(inputs) == 2):
            raise CheckpointRefused(f"{path}: {len(inputs)} inputs; GFPGAN has one, CodeFormer two (picture and weight)")
        self._batch = batch_of(self._session, path.name)
        self._names = [value.name for value in inputs]
        self._weight_type: Any = np.float64 if len(inputs) == 2 and inputs[1].type == "tensor(double)" else np.float32
        self._weight_shape = list(inputs[1].shape) if len(inputs) == 2 else []

    def restore(self, faces: Sequence[Image], codeformer_weight: float, check: Callable[[], None]) -> list[Image]:
        """See Restorer."""
        restored: list[Image] = []
        for start in range(0, len(faces), self._batch):
            check()
            feeds: dict[str, Any] = {self._names[0]: np.stack(faces[start : start + self._batch])}
            if len(self._names) == 2:
                feeds[self._names[1]] = self._weights(codeformer_weight, len(feeds[self._names[0]]))
            restored += [*self._session.run(None, feeds)[0]]
        return restored

    def _weights(self, weight: float, count: int) -> Any:
        """One for all, or one a face where the graph's dimension is open."""
        each = [side if isinstance(side, int) else count for side in self._weight_shape]
        return np.full(each, weight, self._weight_type)
