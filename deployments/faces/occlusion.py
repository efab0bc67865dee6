"""Finds what hides a face, such as a hand or hair.

The operator chooses the segmentation model for it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from deployments.errors import CheckpointRefused
from deployments.faces.compositing.paste import Mask
from deployments.faces.models.batch import batch_of
from deployments.faces.models.graph import read_model, take_float32
from deployments.faces.models.session import open_session
from deployments.settings import FaceSettings
from deployments.wire import Image, Region

_PARTS: dict[Region, int] = {
    "skin": 1,
    "left-eyebrow": 2,
    "right-eyebrow": 3,
    "left-eye": 4,
    "right-eye": 5,
    "glasses": 6,
    "nose": 10,
    "mouth": 11,
    "upper-lip": 12,
    "lower-lip": 13,
}
"""CelebAMask-HQ's classes that belong to a face. Ears, neck, hair, hat and clothes do not."""
_MEAN, _SPREAD = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)


class OcclusionMask:
    """An occlusion model, which is one of two kinds of graph, recognised by the shapes.

    XSeg maps BGR ``[n, 256, 256, 3]`` in 0..1 to visibility ``[n, 256, 256, 1]``. A face parser
    (BiSeNet on CelebAMask-HQ) maps normalised RGB ``[n, 3, 512, 512]`` to scores of classes ``[n,
    19, 512, 512]``.
    """

    def __init__(self, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        self._session = open_session(path, settings, use_cuda, model=take_float32(read_model(path)).SerializeToString())
        source = self._session.get_inputs()[0]
        shape, result = list(source.shape), list(self._session.get_outputs()[0].shape)
        self._name = source.name
        self.parses = shape[1:] == [3, 512, 512] and result[1:] == [19, 512, 512]
        if not self.parses and (shape[1:] != [256, 256, 3] or result[1:] != [256, 256, 1]):
            raise CheckpointRefused(
                f"{path}: maps {shape} to {result}; an occlusion model is XSeg ([n, 256, 256, 3] -> [n, 256, 256, 1]) "
                "or a face parser ([n, 3, 512, 512] -> [n, 19, 512, 512])"
            )
        self._side = 512 if self.parses else 256
        self._batch = batch_of(self._session, path.name)

    def visible(self, faces: Sequence[Image], check: Callable[[], None], regions: Sequence[Region] = ()) -> list[Mask]:
        """Return a mask of the visible pixels of each face, of the size of its crop.

        ``faces`` are aligned square crops, uint8 RGB. With ``regions`` a face parser's mask is 1 in
        these parts of the face only. ``check`` is called between batches; it
        raises Cancelled to stop the work.
        """
        masks: list[Mask] = []
        for start in range(0, len(faces), self._batch):
            check()
            batch = faces[start : start + self._batch]
            outputs = self._session.run(None, {self._name: np.stack([self._blob(face) for face in batch])})[0]
            masks += [self._mask(output, face.shape[0], regions) for output, face in zip(outputs, batch, strict=True)]
        return masks

    def _blob(self, face: Image) -> Any:
        side = self._side
        scaled = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA if face.shape[0] > side else cv2.INTER_LINEAR)
        blob = scaled.astype(np.float32) / 255
        # DeepFaceLab, which XSeg comes from, reads pictures with OpenCV.
        return ((blob - _MEAN) / _SPREAD).transpose(2, 0, 1) if self.parses else blob[:, :, ::-1]

    def _mask(self, output: Any, size: int, regions: Sequence[Region]) -> Mask:
        if self.parses:
            classes = [_PARTS[region] for region in regions or _PARTS]
            visible = np.isin(output.argmax(axis=0), classes).astype(np.float32)
        else:
            visible = output[:, :, 0].clip(0, 1)
        soft = cv2.GaussianBlur(visible, (0, 0), self._side / 64)
        return np.asarray(cv2.resize(soft, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
