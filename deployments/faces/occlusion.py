"""Leaves out what hides a face, such as a hand or hair, by a segmentation model of the operator's choice."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deployments.errors import CheckpointRefused
from deployments.faces.batch import batch_of
from deployments.faces.onnx import open_session
from deployments.faces.paste import Mask
from deployments.settings import FaceSettings
from deployments.wire import Image

_PARTS = (1, 2, 3, 4, 5, 6, 10, 11, 12, 13)
"""CelebAMask-HQ's classes of a face: skin, brows, eyes, glasses, nose, mouth, lips; not ears, neck, hair, hat, cloth."""
_MEAN, _SPREAD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class OcclusionMask:
    """Two kinds of graph, told apart by their shapes: XSeg's (``[n, 256, 256, 3]`` in 0..1 -> ``[n, 256, 256, 1]``, how visible) and a

    face parser's (BiSeNet over CelebAMask-HQ: ``[n, 3, 512, 512]`` -> ``[n, 19, 512, 512]``, scores of classes).
    """

    def __init__(self, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        self._session = open_session(path, settings, use_cuda)
        given = self._session.get_inputs()[0]
        shape, made = list(given.shape), list(self._session.get_outputs()[0].shape)
        self._name = given.name
        self._parses = shape[1:] == [3, 512, 512] and made[1:] == [19, 512, 512]
        if not self._parses and (shape[1:] != [256, 256, 3] or made[1:] != [256, 256, 1]):
            raise CheckpointRefused(
                f"{path}: {shape} -> {made}; an occlusion model is XSeg ([n, 256, 256, 3] -> [n, 256, 256, 1]) "
                "or a face parser ([n, 3, 512, 512] -> [n, 19, 512, 512])"
            )
        self._side = 512 if self._parses else 256
        self._batch = batch_of(self._session, path.name)

    def visible(self, faces: Sequence[Image], check: Callable[[], None]) -> list[Mask]:
        """Aligned square crops, uint8 RGB -> where each face itself is seen, float32 in 0..1, of the same sizes. ``check`` may raise."""
        masks: list[Mask] = []
        for start in range(0, len(faces), self._batch):
            check()
            some = faces[start : start + self._batch]
            made = self._session.run(None, {self._name: np.stack([self._blob(face) for face in some])})[0]
            masks += [self._mask(output, face.shape[0]) for output, face in zip(made, some, strict=True)]
        return masks

    def _blob(self, face: Image) -> Any:
        side = self._side
        seen = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA if face.shape[0] > side else cv2.INTER_LINEAR)
        blob = seen.astype(np.float32) / 255
        return ((blob - _MEAN) / _SPREAD).transpose(2, 0, 1) if self._parses else blob

    def _mask(self, output: Any, size: int) -> Mask:
        shown = np.isin(output.argmax(axis=0), _PARTS).astype(np.float32) if self._parses else output[:, :, 0].clip(0, 1)
        soft = cv2.GaussianBlur(shown, (0, 0), self._side / 64)
        return np.asarray(cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
