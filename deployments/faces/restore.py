"""Restores the detail of swapped faces with a restorer, as an ONNX graph.

GFPGAN, GPEN, RestoreFormer++ and CodeFormer have graphs of one form.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from deployments.errors import CheckpointRefused
from deployments.faces.compositing.alignment import FFHQ, INSWAPPER, Landmarks
from deployments.faces.models.batch import batch_of
from deployments.faces.models.cuda_graph import NUMPY_TYPES
from deployments.faces.models.graph import image_input, inputs_of, read_model, shape_of, take_float32, take_pixels
from deployments.faces.models.session import open_session
from deployments.settings import FaceSettings
from deployments.wire import Image

SIZES = (256, 512, 1024, 2048)
"""The sides of published restorers, in pixels."""
_PIXELS_AT_ONCE = 16 * 512 * 512
"""The pixels of the largest batch: a face of 2048 pixels a side takes as much memory as 16 of
512."""


class Restorer(Protocol):
    """Restores the detail of aligned faces."""

    name: str
    """The value of `X-Face-Restorer`."""
    size: int
    """The side of the aligned faces, in pixels."""
    template: Landmarks
    """The landmarks of an aligned face, in pixels."""

    def restore(self, faces: Sequence[Image], codeformer_weight: float, check: Callable[[], None]) -> list[Image]:
        """Return ``faces`` restored: uint8 RGB, ``size`` pixels a side, aligned to ``template``.

        ``check`` is called between batches; it raises Cancelled to stop the work.
        """


class OnnxRestorer:
    """A restorer from a graph that maps ``[n, 3, size, size]`` in -1..1 to the same.

    ``name`` is the setting that its file comes from. CodeFormer's graph has its fidelity weight as
    another input, before or after the image. Faces are restored in batches if the graph supports
    it; GFPGAN's does not, since its convolutions get their weights from the face.
    """

    def __init__(self, name: str, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        model = read_model(path)
        image = image_input(model)
        shape = None if image is None else shape_of(image)
        if image is None or shape is None or shape[1:] not in [(3, size, size) for size in SIZES]:
            sizes = ", ".join(str(size) for size in SIZES)
            raise CheckpointRefused(
                f"{path}: input shape {_text(shape)}; a face restorer takes [1, 3, size, size] with a size of {sizes}"
            )
        self.size = int(shape[2] or 0)
        # GPEN of 256 pixels was trained on faces that are cut tighter than those of FFHQ.
        self.template = INSWAPPER * 2 if self.size == 256 else FFHQ * (self.size / 512)
        weights = [value.name for value in inputs_of(model) if value.name != image.name]
        if len(weights) > 1 or (name != "restorer" and (name == "codeformer") != (len(weights) == 1)):
            raise CheckpointRefused(
                f"{path}: {len(weights) + 1} inputs; CodeFormer has two, an image and a weight; GFPGAN has one, as have other "
                "restorers"
            )
        self.name = "codeformer" if weights else _published_name(path, otherwise=name)
        self._image = "pixels"
        self._session = open_session(path, settings, use_cuda=use_cuda, model=take_pixels(take_float32(model)))
        self._batch = min(batch_of(self._session, path.name), max(1, _PIXELS_AT_ONCE // self.size**2))
        self._weight = next((value for value in self._session.get_inputs() if value.name in weights), None)
        self._result = self._session.get_outputs()[0].name

    def restore(self, faces: Sequence[Image], codeformer_weight: float, check: Callable[[], None]) -> list[Image]:
        """Return ``faces`` restored; see ``Restorer``."""
        restored: list[Image] = []
        for start in range(0, len(faces), self._batch):
            check()
            feeds: dict[str, Any] = {self._image: np.stack(faces[start : start + self._batch])}
            if self._weight is not None:
                feeds[self._weight.name] = self._weights(codeformer_weight, len(feeds[self._image]))
            restored += [*self._session.run([self._result], feeds)[0]]
        return restored

    def _weights(self, weight: float, count: int) -> Any:
        """Return one weight for all faces, or one per face if the graph's dimension is variable."""
        assert self._weight is not None
        shape = [side if isinstance(side, int) else count for side in self._weight.shape]
        return np.full(shape, weight, NUMPY_TYPES[self._weight.type])


def _published_name(path: Path, *, otherwise: str) -> str:
    stem = path.stem.lower()
    return next((name for name in ("gfpgan", "gpen", "restoreformer") if stem.startswith(name)), otherwise)


def _text(shape: tuple[int | None, ...] | None) -> str:
    return "unknown" if shape is None else f"[{', '.join('?' if side is None else str(side) for side in shape)}]"
