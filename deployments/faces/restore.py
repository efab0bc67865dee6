"""Restores the detail of a swapped face: GFPGAN or CodeFormer, as ONNX graphs."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deployments.errors import CheckpointRefused
from deployments.faces.onnx import BATCH, open_session
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

    Faces go through it together if it says that its first dimension is open; GFPGAN's convolutions, whose weights the face itself
    makes, are exported for one.
    """

    def __init__(self, name: str, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        self.name = name
        self._session = open_session(path, settings, use_cuda)
        inputs = self._session.get_inputs()  # bound by index: exports do not agree on names
        if list(inputs[0].shape)[1:] != [3, SIZE, SIZE]:
            raise CheckpointRefused(f"{path}: input {inputs[0].shape}; a face restorer takes [1, 3, {SIZE}, {SIZE}]")
        if (name == "codeformer") != (len(inputs) == 2):
            raise CheckpointRefused(f"{path}: {len(inputs)} inputs; GFPGAN has one, CodeFormer two (picture and weight)")
        self._batch = 1 if inputs[0].shape[0] == 1 else BATCH
        self._names = [value.name for value in inputs]
        self._weight_type: Any = np.float64 if len(inputs) == 2 and inputs[1].type == "tensor(double)" else np.float32
        self._weight_rank = len(inputs[1].shape) if len(inputs) == 2 else 0

    def restore(self, faces: Sequence[Image], codeformer_weight: float, check: Callable[[], None]) -> list[Image]:
        """See Restorer."""
        restored: list[Image] = []
        for start in range(0, len(faces), self._batch):
            check()
            blob = np.stack(faces[start : start + self._batch]).transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
            feeds = {self._names[0]: blob}
            if len(self._names) == 2:
                feeds[self._names[1]] = np.full((1,) * self._weight_rank, codeformer_weight, self._weight_type)
            output = self._session.run(None, feeds)[0]
            pixels = (np.clip(output, -1, 1).transpose(0, 2, 3, 1) + 1) * 127.5
            restored += [*np.rint(pixels).astype(np.uint8)]
        return restored
