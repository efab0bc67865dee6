"""Puts the face of one identity into aligned crops of other images; there are two swappers.

One runs a published model, the other needs none.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from deployments.errors import CheckpointRefused
from deployments.faces.compositing.alignment import ARCFACE, Matrix, align, align_affine, crop
from deployments.faces.compositing.colour import match_saturation, match_skin
from deployments.faces.compositing.paste import Mask, sharp_box_mask, soft_box_mask
from deployments.faces.compositing.seam import seam_light
from deployments.faces.compositing.skin import distance_from_skin, likely
from deployments.faces.models.batch import batch_of
from deployments.faces.models.graph import open_batch, read_model, take_float32
from deployments.faces.models.session import open_session
from deployments.faces.swap_models import model_of, target_of
from deployments.settings import FaceModels, FaceSettings
from deployments.wire import Face, Image, Reference

Target: TypeAlias = tuple[Image, Face]
"""An image, and the face in it that is replaced."""


_TURNED_AWAY = 0.3
"""The distance of a cheek from the nose below which it is hardly seen, in distances of the eyes."""

Points = npt.NDArray[np.float64]

_OWN = 0.9
"""The share of the reference's own proportions in a swap by alignment."""


_SKIN, _PERHAPS_SKIN = 2.8, 5.0
"""Distances from skin: blond hair above the brows is not skin, but stubble and a shadow are."""


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


class OnnxSwapper:
    """A published swap model as an ONNX graph, in batches if its file allows them.

    ``model`` says what the graph takes and returns. inswapper's crops are those of insightface's
    ``INSwapper``. With a ``pixel_boost`` above the model's size the face is cropped at that size,
    and its pixels are distributed in turn to 4 or more tiles of the model's size.
    """

    def __init__(self, path: Path, settings: FaceSettings, use_cuda: bool, *, models: FaceModels | None = None) -> None:
        graph = read_model(path)
        named, converter = ("auto", None) if models is None else (models.swapper_model, models.embedding_converter)
        self.model = model_of(path, graph, named=named, converter=converter)
        self.name = self.model.name
        self._identity_map = _identity_map(path, graph) if self.model.identity == "mapped" else None
        self._converter = None
        if self.model.converter is not None:
            self._converter = EmbeddingConverter(converter or path.with_name(self.model.converter), settings, use_cuda)
        self._target = target_of(graph, self.model).name
        self._session = open_session(path, settings, use_cuda=use_cuda, model=open_batch(take_float32(graph)))
        self._source = next(value.name for value in self._session.get_inputs() if value.name != self._target)
        # hyperswap returns a mask too, which is not used: its crops are pasted as those of the
        # others.
        self._result = self._session.get_outputs()[0].name
        self._batch = batch_of(self._session, path.name)
        self._tiles = max(1, settings.pixel_boost // self.model.size)
        self._size = self.model.size * self._tiles
        self._template = self.model.template * self._tiles
        self._mask = sharp_box_mask(self._size) if self.model.sharp else soft_box_mask(self._size)

    def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
        """Return a patch for each target; see ``Swapper``."""
        identity = self._identity(reference)
        matrices = [align(face.landmarks, self._template) for _, face in targets]
        tiles = np.concatenate(
            [_split(self._crop(frame, matrix), self._tiles) for (frame, _), matrix in zip(targets, matrices, strict=True)]
        )
        mean, spread = np.asarray(self.model.mean, np.float32), np.asarray(self.model.spread, np.float32)
        outputs = []
        for start in range(0, len(tiles), self._batch):
            check()
            pixels = tiles[start : start + self._batch].astype(np.float32) / 255
            blob = ((pixels - mean) / spread).transpose(0, 3, 1, 2)
            feeds = {self._target: blob, self._source: np.repeat(identity, len(blob), axis=0)}
            outputs.append(self._session.run([self._result], feeds)[0])
        made = np.concatenate(outputs).transpose(0, 2, 3, 1)
        if self.model.signed:
            made = made * spread + mean
        pixels = np.clip(made * 255, 0, 255).astype(np.uint8)
        count = self._tiles**2
        return [
            Patch(_join(pixels[i * count : (i + 1) * count], self._tiles), matrix, self._mask)
            for i, matrix in enumerate(matrices)
        ]

    def _crop(self, frame: Image, matrix: Matrix) -> Image:
        if self.model.sharp:  # as insightface does, with black beyond the frame
            return np.asarray(cv2.warpAffine(frame, matrix, (self._size, self._size)))
        return crop(frame, matrix, self._size)

    def _identity(self, reference: Reference) -> npt.NDArray[np.float32]:
        """Return what tells the graph whose face to make, for one face."""
        face = reference.face
        if self.model.source_template is not None:
            side = int(self.model.source[-1] or 0)
            pixels = crop(reference.pixels, align(face.landmarks, self.model.source_template), side)
            return np.asarray((pixels.astype(np.float32) / 255).transpose(2, 0, 1)[None])
        if self._converter is not None:
            # The converters were trained on embeddings of the recogniser's own length.
            converted = self._converter.convert(face.embedding * np.float32(face.length))
            scaled = self.model.identity == "converted and scaled"
            return converted / np.linalg.norm(converted) if scaled else converted
        if self._identity_map is None:
            return np.asarray(face.embedding[None], np.float32)
        latent = face.embedding @ self._identity_map
        return np.asarray((latent / np.linalg.norm(latent))[None], np.float32)


class EmbeddingConverter:
    """A graph that converts insightface's embeddings, ``[1, 512]``, into another recogniser's."""

    def __init__(self, path: Path, settings: FaceSettings, use_cuda: bool) -> None:
        if not path.is_file():
            raise CheckpointRefused(
                f"{path}: no such file; this swap model needs it to convert embeddings: put it beside the model, or set "
                "`embedding_converter`"
            )
        graph = take_float32(read_model(path))
        self._session = open_session(path, settings, use_cuda=use_cuda, model=graph.SerializeToString())
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        shapes = [list(value.shape) for value in (*inputs, *outputs)]
        if len(inputs) != 1 or any(shape[1:] != [512] for shape in shapes):
            raise CheckpointRefused(f"{path}: shapes {shapes}; a converter of embeddings maps [1, 512] to [1, 512]")
        self._name = inputs[0].name

    def convert(self, embedding: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return a converted embedding, float32 ``[1, 512]``."""
        return np.asarray(self._session.run(None, {self._name: embedding[None]})[0], np.float32)


def _identity_map(path: Path, graph: onnx.ModelProto) -> npt.NDArray[np.float32]:
    """Return inswapper's matrix, by its name, or else the last one of its shape."""
    constants = graph.graph.initializer
    maps = [tensor for tensor in constants if tuple(tensor.dims) == (512, 512)]
    named = [tensor for tensor in constants if tensor.name == "buff2fs"]
    chosen = (named or maps or [constants[-1]])[-1]
    if tuple(chosen.dims) != (512, 512):
        raise CheckpointRefused(f"{path}: the identity map has shape {list(chosen.dims)}, expected [512, 512]")
    return np.asarray(numpy_helper.to_array(chosen), np.float32)


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

    It aligns the pixels of the reference to the same template, gives them the colours and the light
    of the target, and blends them in where both show the face. Eyes, nose and mouth are always the
    reference's; hair stays the target's.
    """

    name = "alignment"
    size = 192
    # ArcFace's template cuts at the eyebrows and the chin; here it is moved and shrunk to show the
    # whole face.
    template = (ARCFACE - 56) / 112 * 0.8 * size + np.array([size / 2, size * 0.52])

    def __init__(self) -> None:
        # Masks and light are smooth, so half of the size is enough for them.
        points = self.template / 2
        eyes, mouth = points[:2].mean(axis=0), points[3:].mean(axis=0)
        span, reach = float(points[1, 0] - points[0, 0]), float(mouth[1] - eyes[1])
        middle = (float(eyes[0]), float(eyes[1] + 0.45 * reach))
        around = self._oval(middle, across=1.18 * span, up=1.2 * reach, down=1.22 * reach)
        features = self._oval(middle, across=1.0 * span, up=1.05 * reach, down=1.0 * reach)
        side = self.size / 2
        self._around = np.asarray(cv2.GaussianBlur(around, (0, 0), side / 20), np.float32)
        # Twice the distance from the landmarks that eyes, nose and mouth reach.
        self._feature_width = round(0.6 * span)
        # Above the eyebrows hair may begin.
        rows = (np.arange(int(side), dtype=np.float32) - (eyes[1] - 0.46 * reach)) / (0.2 * reach)
        self._below_brows = np.asarray(np.clip(rows, 0, 1)[:, None], np.float32)
        self._light = np.asarray(1 - 0.85 * cv2.GaussianBlur(features, (0, 0), side / 16), np.float32)[..., None]
        self._outer: npt.NDArray[np.float32] = around * (1 - cv2.GaussianBlur(features, (0, 0), side / 36))
        self._inside: npt.NDArray[np.bool_] = features > 0

    def _oval(self, middle: tuple[float, float], *, across: float, up: float, down: float) -> Mask:
        """Return an oval that reaches up and down by different lengths, at half of the size."""
        y, x = np.mgrid[: self.size // 2, : self.size // 2].astype(np.float32)
        dx, dy = (x - middle[0]) / across, y - middle[1]
        return np.asarray(dx**2 + np.where(dy < 0, dy / up, dy / down) ** 2 <= 1, np.float32)

    def swap(self, targets: Sequence[Target], reference: Reference, check: Callable[[], None]) -> list[Patch]:
        """Return a patch for each target; see ``Swapper``."""
        patches = []
        for frame, face in targets:
            check()
            matrix = align(face.landmarks, self.template)
            target = crop(frame, matrix, self.size)
            landmarks = face.landmarks @ matrix[:, :2].T + matrix[:, 2]
            goal = _between(landmarks, reference.face.landmarks)
            source = crop(reference.pixels, align_affine(reference.face.landmarks, goal), self.size)
            pixels, mask = self._blended(source, target, goal=goal, landmarks=landmarks)
            patches.append(Patch(pixels, matrix, mask))
        return patches

    def _blended(self, source: Image, target: Image, goal: Points, landmarks: Points) -> tuple[Image, Mask]:
        """Return the reference's face as the target's would look, and the mask of what is replaced.

        ``goal`` and ``landmarks`` are those of the source and of the target, in pixels of the crop.
        """
        half, whole = (self.size // 2, self.size // 2), (self.size, self.size)
        new, old = (np.asarray(cv2.resize(image, half, interpolation=cv2.INTER_AREA)) for image in (source, target))
        new_skin, old_skin = (
            distance_from_skin(image, _cheeks(points / 2, half[0])) for image, points in ((new, goal), (old, landmarks))
        )
        surely_new, surely_old = likely(new_skin, _SKIN), likely(old_skin, _SKIN)
        # Hair, eyes and background would shift the colours of the skin.
        skins = (self._inside & (surely > 0.5) for surely in (surely_new, surely_old))
        matched = match_saturation(match_skin(source, old, *skins), old, self._inside)
        both = surely_new * surely_old
        mask = self._mask(both, new_skin, old_skin=old_skin, landmarks=goal)
        # The middle of the face keeps more of the reference's own light, by which it is known.
        small = np.asarray(cv2.resize(matched, half, interpolation=cv2.INTER_AREA))
        light = seam_light(small, old, both * self._outer) * self._light
        lit = cv2.add(matched, cv2.resize(light, whole), dtype=cv2.CV_8U)
        return np.asarray(lit), np.asarray(cv2.resize(mask, whole), np.float32)

    def _mask(self, both: Mask, new_skin: Mask, old_skin: Mask, landmarks: Points) -> Mask:
        """Return the mask of what is replaced, at half of the size.

        Below the brows that is the reference's skin, where the target has a face, and the
        reference's eyes, nose and mouth in any case. Above them hair begins, and there both must
        show skin.
        """
        side = both.shape[0]
        shown, sure = (
            np.clip(2.5 * cv2.GaussianBlur(one, (0, 0), side / 48) - 0.75, 0, 1)
            for one in (both, likely(new_skin, _PERHAPS_SKIN))
        )
        # A wide blur closes eyes, glasses and wrinkles of the target, but not its background.
        there = np.clip(2.5 * cv2.GaussianBlur(likely(old_skin, _PERHAPS_SKIN), (0, 0), side / 16) - 0.5, 0, 1)
        features = np.zeros_like(both)
        hull = cv2.convexHull(np.rint(landmarks / 2).astype(np.int32))
        cv2.fillConvexPoly(features, hull, 1)
        cv2.polylines(features, [hull], isClosed=True, color=1, thickness=self._feature_width)
        features = cv2.GaussianBlur(features, (0, 0), side / 32)
        share = np.maximum(features, sure * there) * self._below_brows + shown * (1 - self._below_brows)
        return np.asarray(cv2.GaussianBlur(self._around * share, (0, 0), side / 40), np.float32)


def _cheeks(points: Points, side: int) -> npt.NDArray[np.bool_]:
    """Return where a face with the landmarks ``points`` is certainly skin: cheeks and nose.

    A cheek that is turned away is left out: its place may show the background.
    """
    nose, span = points[2], float(np.linalg.norm(points[1] - points[0]))
    places = [0.6 * nose + 0.2 * (points[0] + points[1])]
    for eye, mouth in ((points[0], points[3]), (points[1], points[4])):
        if np.linalg.norm(eye + mouth - 2 * nose) > _TURNED_AWAY * 2 * span:
            places.append(0.4 * (eye + mouth) + 0.2 * nose)
    cheeks = np.zeros((side, side), np.uint8)
    for x, y in places:
        cv2.circle(cheeks, (round(float(x)), round(float(y))), max(round(0.17 * span), 1), 1, -1)
    return np.asarray(cheeks > 0)


def _between(target: npt.NDArray[np.floating], reference: npt.NDArray[np.float32]) -> Points:
    """Return where the reference's landmarks go.

    That is nearer to its own proportions, which make it the reference's face, than to the
    target's, which are partly those of the pose.
    """
    matrix = align(reference, target.astype(np.float64))
    own = reference @ matrix[:, :2].T + matrix[:, 2]
    return np.asarray((1 - _OWN) * target + _OWN * own)
