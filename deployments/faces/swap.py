"""Puts the face of one identity into aligned crops of other images; there are two swappers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
from onnx import numpy_helper

from deployments.errors import CheckpointRefused
from deployments.faces.compositing.alignment import ARCFACE, Matrix, align, align_affine, crop
from deployments.faces.compositing.colour import match_colours
from deployments.faces.compositing.paste import Mask, sharp_box_mask
from deployments.faces.models.batch import batch_of
from deployments.faces.models.graph import open_batch, read_model
from deployments.faces.models.session import open_session
from deployments.settings import FaceSettings
from deployments.wire import Face, Image, Reference

Target: TypeAlias = tuple[Image, Face]
"""An image, and the face in it that is replaced."""

_TILE = 128
"""The side of inswapper's input, in pixels."""


@dataclass(frozen=True, slots=True)
class Patch:
    """A new face: an aligned square crop (uint8 RGB), its matrix and its blending mask."""

    pixels: Image
    matrix: Matrix
    mask: Mask


class Swapper(Protocol):
    """Makes the new faces."""

    name: str
    """The value of `X-Face-Engine`."""

    def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
        """Return a patch for each target.

        ``check`` is called between batches; it raises Cancelled to stop the work.
        """


class InSwapper:
    """inswapper_128, in batches if its file allows them.

    Its inputs and the treatment of its outputs are those of insightface's ``INSwapper``. With a
    ``pixel_boost`` of 256 or 512 the face is cropped at that size, and its pixels are distributed
    in turn to 4 or 16 tiles of 128 pixels.
    """

    name = "inswapper"

    def __init__(self, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        model = read_model(path)
        self._session = open_session(path, settings, use_cuda=use_cuda, model=open_batch(model))
        inputs = self._session.get_inputs()
        shapes = [list(value.shape) for value in inputs]
        if len(shapes) != 2 or shapes[0][2:] != [_TILE, _TILE] or shapes[1][1:] != [512]:
            raise CheckpointRefused(f"{path}: input shapes {shapes}; inswapper takes [n, 3, {_TILE}, {_TILE}] and [n, 512]")
        self._batch = batch_of(self._session, path.name)
        self._names = [value.name for value in inputs]
        constants = model.graph.initializer
        # insightface takes the last constant in any case.
        named = [tensor for tensor in constants if tensor.name == "buff2fs"]
        self._identity_map = numpy_helper.to_array(named[0] if named else constants[-1])
        if self._identity_map.shape != (512, 512):
            raise CheckpointRefused(f"{path}: the identity map has shape {list(self._identity_map.shape)}, expected [512, 512]")
        self._tiles = settings.pixel_boost // _TILE
        self._size = settings.pixel_boost
        # ArcFace's template is 112 pixels wide; inswapper's has 8 more on each side.
        self._template = (ARCFACE + np.array([8, 0])) * self._tiles
        self._mask = sharp_box_mask(self._size)

    def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
        """Return a patch for each target; see ``Swapper``."""
        latent = reference.face.embedding @ self._identity_map
        latent = (latent / np.linalg.norm(latent))[None].astype(np.float32)
        matrices = [align(face.landmarks, self._template) for _, face in targets]
        tiles = np.concatenate(
            [
                _split(np.asarray(cv2.warpAffine(frame, matrix, (self._size, self._size))), self._tiles)
                for (frame, _), matrix in zip(targets, matrices, strict=True)
            ]
        )
        outputs = []
        for start in range(0, len(tiles), self._batch):
            check()
            blob = tiles[start : start + self._batch].transpose(0, 3, 1, 2).astype(np.float32) / 255
            feeds = {self._names[0]: blob, self._names[1]: np.repeat(latent, len(blob), axis=0)}
            outputs.append(self._session.run(None, feeds)[0])
        pixels = np.clip(np.concatenate(outputs).transpose(0, 2, 3, 1) * 255, 0, 255).astype(np.uint8)
        count = self._tiles**2
        return [
            Patch(_join(pixels[i * count : (i + 1) * count], self._tiles), matrix, self._mask)
            for i, matrix in enumerate(matrices)
        ]


def _split(image: Image, n: int) -> Image:
    """Split an image of ``n * 128`` pixels a side into ``n * n`` tiles.

    Each tile has every n-th pixel.
    """
    side = image.shape[0] // n
    return np.ascontiguousarray(image.reshape(side, n, side, n, 3).transpose(1, 3, 0, 2, 4)).reshape(n * n, side, side, 3)


def _join(tiles: Image, n: int) -> Image:
    """Join the tiles of ``_split`` into one image."""
    side = tiles.shape[1]
    return np.ascontiguousarray(tiles.reshape(n, n, side, side, 3).transpose(2, 0, 3, 1, 4)).reshape(side * n, side * n, 3)


class AlignmentSwapper:
    """A swap without a neural network.

    It aligns the pixels of the reference to the same template, matches their colours and blends
    them in.
    """

    name = "alignment"
    size = 192
    # ArcFace's template cuts at the eyebrows and the chin; here it is moved and shrunk to show the
    # whole face.
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
        """Return a patch for each target; see ``Swapper``."""
        patches = []
        for frame, face in targets:
            check()
            matrix = align(face.landmarks, self.template)
            target = crop(frame, matrix, self.size)
            # Halfway between the template and the target's own features: nearer to its pose, still
            # the reference's face.
            landmarks = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
            source = crop(reference.pixels, align_affine(reference.face.landmarks, (landmarks + self.template) / 2), self.size)
            patches.append(Patch(match_colours(source, target, self._inside), matrix, self._mask))
        return patches
