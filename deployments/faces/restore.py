"""Restores the detail of swapped faces with GFPGAN or CodeFormer, as ONNX graphs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deployments.errors import CheckpointRefused
from deployments.faces.models.batch import batch_of
from deployments.faces.models.graph import read_model, take_pixels
from deployments.faces.models.session import open_session
from deployments.settings import FaceSettings
from deployments.wire import Image

SIZE = 512
"""The side of the aligned faces, in pixels."""


class Restorer(Protocol):
    """Restores the detail of aligned faces."""

    name: str
    """The value of `X-Face-Restorer`."""

    def restore(self, faces: Sequence[Image], codeformer_weight: float, check: Callable[[], None]) -> list[Image]:
        """Return ``faces`` restored: uint8 RGB of 512 x 512 pixels, aligned to FFHQ's template.

        ``check`` is called between batches; it raises Cancelled to stop the work.
        """


class OnnxRestorer:
    """A restorer from a graph that maps ``[n, 3, 512, 512]`` in -1..1 to the same.

    CodeFormer's graph has its fidelity weight as a second input. Faces are restored in batches if
    the graph supports it; GFPGAN's does not, since its convolutions get their weights from the
    face.
    """

    def __init__(self, name: str, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        self.name = name
        model = read_model(path)
        shape = [side.dim_value or side.dim_param or None for side in model.graph.input[0].type.tensor_type.shape.dim]
        if shape[1:] != [3, SIZE, SIZE]:
            raise CheckpointRefused(f"{path}: input shape {shape}; a face restorer takes [1, 3, {SIZE}, {SIZE}]")
        self._session = open_session(path, settings, use_cuda=use_cuda, model=take_pixels(model))
        # Inputs are identified by position, since exports use different names.
        inputs = self._session.get_inputs()
        if (name == "codeformer") != (len(inputs) == 2):
            raise CheckpointRefused(f"{path}: {len(inputs)} inputs; GFPGAN has one, CodeFormer two (image and weight)")
        self._batch = batch_of(self._session, path.name)
        self._names = [value.name for value in inputs]
        self._weight_type: Any = np.float64 if len(inputs) == 2 and inputs[1].type == "tensor(double)" else np.float32
        self._weight_shape = list(inputs[1].shape) if len(inputs) == 2 else []

    def restore(self, faces: Sequence[Image], codeformer_weight: float, check: Callable[[], None]) -> list[Image]:
        """Return ``faces`` restored; see ``Restorer``."""
        restored: list[Image] = []
        for start in range(0, len(faces), self._batch):
            check()
            feeds: dict[str, Any] = {self._names[0]: np.stack(faces[start : start + self._batch])}
            if len(self._names) == 2:
                feeds[self._names[1]] = self._weights(codeformer_weight, len(feeds[self._names[0]]))
            restored += [*self._session.run(None, feeds)[0]]
        return restored

    def _weights(self, weight: float, count: int) -> Any:
        """Return one weight for all faces, or one per face if the graph's dimension is variable."""
        shape = [side if isinstance(side, int) else count for side in self._weight_shape]
        return np.full(shape, weight, self._weight_type)
