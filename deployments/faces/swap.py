"""Puts one identity's face into an aligned crop of another picture. Two engines behind one Protocol."""

import contextlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from deployments.errors import CheckpointRefused
from deployments.faces.onnx import open_session
from deployments.faces.paste import ARCFACE, Matrix, align, align_affine, box_mask, crop
from deployments.settings import FaceSettings
from deployments.wire import Face, Image, Reference


class Swapper(Protocol):
    """Makes the new face."""

    name: str
    """What `X-Face-Engine` says."""

    def swap(self, frame: Image, face: Face, reference: Reference) -> tuple[Image, Matrix, npt.NDArray[np.float32]]:
        """The new face as an aligned square crop (uint8 RGB), the matrix that aligned it, and its blending mask."""


class InSwapper:
    """insightface's ``INSwapper`` (inswapper_128)."""

    name = "inswapper"

    def __init__(self, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        session = open_session(path, settings, use_cuda)
        shapes = [list(value.shape) for value in session.get_inputs()]
        if len(shapes) != 2 or shapes[0][2:] != [128, 128] or shapes[1][1:] != [512]:
            raise CheckpointRefused(f"{path}: inputs {shapes}; inswapper takes [n, 3, 128, 128] and [n, 512]")
        from insightface.model_zoo.inswapper import INSwapper

        with contextlib.redirect_stdout(io.StringIO()):  # it prints its input shape
            self._model: Any = INSwapper(str(path), session)
        initializers = onnx.load(path).graph.initializer
        named = [tensor for tensor in initializers if tensor.name == "buff2fs"]  # insightface takes the last, whatever it is
        self._model.emap = numpy_helper.to_array(named[0] if named else initializers[-1])
        if self._model.emap.shape != (512, 512):
            raise CheckpointRefused(f"{path}: the identity map has shape {list(self._model.emap.shape)}, expected [512, 512]")
        self._mask = box_mask(128)

    def swap(self, frame: Image, face: Face, reference: Reference) -> tuple[Image, Matrix, npt.NDArray[np.float32]]:
        """See Swapper."""
        target = SimpleNamespace(kps=face.landmarks)
        source = SimpleNamespace(normed_embedding=reference.face.embedding)
        bgr, matrix = self._model.get(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), target, source, paste_back=False)
        return np.ascontiguousarray(bgr[:, :, ::-1]), np.asarray(matrix), self._mask


class AlignmentSwapper:
    """Swap without a network: the reference's pixels, aligned to the same template, their colours matched, blended in.

    Colours are matched by mean and spread in CIE L*a*b* (Reinhard et al., "Color Transfer between Images", 2001).
    """

    name = "alignment"
    size = 192
    # ArcFace's template cuts at the eyebrows and the chin; moved and shrunk in the crop so that the whole face is in.
    template = (ARCFACE - 56) / 112 * 0.8 * size + np.array([size / 2, size * 0.52])

    def __init__(self) -> None:
        mask = np.zeros((self.size, self.size), np.float32)
        eyes, mouth = self.template[:2].mean(axis=0), self.template[3:].mean(axis=0)
        centre = eyes * 0.6 + mouth * 0.4
        span = float(np.linalg.norm(self.template[1] - self.template[0]))
        reach = float(np.linalg.norm(mouth - eyes))
        cv2.ellipse(mask, (int(centre[0]), int(centre[1])), (int(span * 1.05), int(reach * 1.15)), 0, 0, 360, 1.0, -1)
        self._inside = mask > 0
        self._mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), self.size / 28))

    def swap(self, frame: Image, face: Face, reference: Reference) -> tuple[Image, Matrix, npt.NDArray[np.float32]]:
        """See Swapper."""
        matrix = align(face.landmarks, self.template)
        target = crop(frame, matrix, self.size)
        # Half way between the template and where the target's own features are: nearer to its pose, still the reference's face.
        seen = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
        source = crop(reference.pixels, align_affine(reference.face.landmarks, (seen + self.template) / 2), self.size)
        return self._match_colours(source, target), matrix, self._mask

    def _match_colours(self, source: Image, target: Image) -> Image:
        a, b = (cv2.cvtColor(np.float32(image / 255), cv2.COLOR_RGB2LAB) for image in (source, target))
        a_in, b_in = a[self._inside], b[self._inside]
        spread = np.clip(b_in.std(axis=0) / np.maximum(a_in.std(axis=0), 1e-3), 0.5, 1.5)
        matched = (a - a_in.mean(axis=0)) * spread + b_in.mean(axis=0)
        rgb = cv2.cvtColor(matched.astype(np.float32), cv2.COLOR_LAB2RGB)
        return np.asarray(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8))
