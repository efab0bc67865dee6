"""Makes one identity's face for aligned crops of other pictures. Two engines behind one Protocol."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

from deployments.errors import CheckpointRefused
from deployments.faces.batch import batch_of, let_batch
from deployments.faces.colour import match_colours
from deployments.faces.onnx import open_session, read_model
from deployments.faces.paste import ARCFACE, Mask, Matrix, align, align_affine, crop, sharp_box_mask
from deployments.settings import FaceSettings
from deployments.wire import Face, Image, Reference

Target: TypeAlias = tuple[Image, Face]
"""A picture, and the face in it that is to be replaced."""

_TILE = 128
"""Side of what inswapper sees, pixels."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A new face as an aligned square crop (uint8 RGB), the matrix that aligned it, and its blending mask."""

    pixels: Image
    matrix: Matrix
    mask: Mask


class Swapper(Protocol):
    """Makes the new face."""

    name: str
    """What `X-Face-Engine` says."""

    def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
        """A patch for each target. ``check`` is called between batches and may raise."""


class InSwapper:
    """inswapper_128, over all targets together where its file allows.

    What goes into the graph and what becomes of its output is insightface's ``INSwapper``. With a ``pixel_boost`` of 256 or 512 the
    face is cropped at that size and dealt out, pixel by pixel in turn, to as many pictures of 128 pixels as it takes.
    """

    name = "inswapper"

    def __init__(self, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        model = read_model(path)
        self._session = open_session(path, settings, use_cuda, let_batch(model))
        inputs = self._session.get_inputs()
        shapes = [list(value.shape) for value in inputs]
        if len(shapes) != 2 or shapes[0][2:] != [_TILE, _TILE] or shapes[1][1:] != [512]:
            raise CheckpointRefused(f"{path}: inputs {shapes}; inswapper takes [n, 3, {_TILE}, {_TILE}] and [n, 512]")
        self._batch = batch_of(self._session, path.name)
        self._names = [value.name for value in inputs]
        constants = model.graph.initializer
        named = [tensor for tensor in constants if tensor.name == "buff2fs"]  # insightface takes the last, whatever it is
        self._identity_map = numpy_helper.to_array(named[0] if named else constants[-1])
        if self._identity_map.shape != (512, 512):
            raise CheckpointRefused(f"{path}: the identity map has shape {list(self._identity_map.shape)}, expected [512, 512]")
        self._tiles = settings.pixel_boost // _TILE
        self._size = settings.pixel_boost
        # ArcFace's template is 112 pixels wide; inswapper's has 8 more at each side.
        self._template = (ARCFACE + np.array([8, 0])) * self._tiles
        self._mask = sharp_box_mask(self._size)

    def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
        """See Swapper."""
        latent = reference.face.embedding @ self._identity_map
        latent = (latent / np.linalg.norm(latent))[None].astype(np.float32)
        matrices = [align(face.landmarks, self._template) for _, face in targets]
        tiles = np.concatenate(
            [
                _deal(np.asarray(cv2.warpAffine(frame, matrix, (self._size, self._size))), self._tiles)
                for (frame, _), matrix in zip(targets, matrices, strict=True)
            ]
        )
        made = []
        for start in range(0, len(tiles), self._batch):
            check()
            blob = tiles[start : start + self._batch].transpose(0, 3, 1, 2).astype(np.float32) / 255
            feeds = {self._names[0]: blob, self._names[1]: np.repeat(latent, len(blob), axis=0)}
            made.append(self._session.run(None, feeds)[0])
        pixels = np.clip(np.concatenate(made).transpose(0, 2, 3, 1) * 255, 0, 255).astype(np.uint8)
        each = self._tiles**2
        return [
            Patch(_gather(pixels[i * each : (i + 1) * each], self._tiles), matrix, self._mask)
            for i, matrix in enumerate(matrices)
        ]


def _deal(image: Image, n: int) -> Image:
    """A picture of ``n`` times 128 pixels -> ``n * n`` of 128, each of every n-th pixel."""
    side = image.shape[0] // n
    return np.ascontiguousarray(image.reshape(side, n, side, n, 3).transpose(1, 3, 0, 2, 4)).reshape(n * n, side, side, 3)


def _gather(tiles: Image, n: int) -> Image:
    """The reverse of ``_deal``."""
    side = tiles.shape[1]
    return np.ascontiguousarray(tiles.reshape(n, n, side, side, 3).transpose(2, 0, 3, 1, 4)).reshape(side * n, side * n, 3)


class AlignmentSwapper:
    """Swap without a network: the reference's pixels, aligned to the same template, their colours matched, blended in."""

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
        self._inside: npt.NDArray[np.bool_] = mask > 0
        self._mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), self.size / 28))

    def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
        """See Swapper."""
        patches = []
        for frame, face in targets:
            check()
            matrix = align(face.landmarks, self.template)
            target = crop(frame, matrix, self.size)
            # Half way between the template and where the target's own features are: nearer to its pose, still the reference's face.
            seen = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
            source = crop(reference.pixels, align_affine(reference.face.landmarks, (seen + self.template) / 2), self.size)
            patches.append(Patch(match_colours(source, target, self._inside), matrix, self._mask))
        return patches
