"""The face engine: an analyser, a swapper and perhaps a restorer, applied to the frames of a chunk together."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from deployments.errors import CheckpointRefused, NoFaceFound
from deployments.faces.analysis import FaceAnalyser, InsightFaceAnalyser
from deployments.faces.colour import match_colours
from deployments.faces.occlusion import OcclusionMask
from deployments.faces.paste import FFHQ, align, box_mask, crop, paste
from deployments.faces.restore import SIZE, OnnxRestorer, Restorer
from deployments.faces.swap import InSwapper, Patch, Swapper
from deployments.settings import FaceModels, FaceSettings
from deployments.wire import Face, Frames, Image, Reference, SwapOptions

Check = Callable[[], None]
"""Called between pieces of work; raises if the work is no longer wanted."""
_REFERENCE_SIDE = 640
_MARGIN = 0.6  # of the face's size: what of its surroundings travels with a reference


class FaceEngine:
    """Finds faces and swaps them; several threads may use it."""

    def __init__(
        self,
        analyser: FaceAnalyser,
        swapper: Swapper,
        restorer: Restorer | None,
        occlusion: OcclusionMask | None = None,
        *,
        colours: bool = False,
    ) -> None:
        self._analyser = analyser
        self._swapper = swapper
        self._restorer = restorer
        self._occlusion = occlusion
        self._colours = colours
        self._mask = box_mask(SIZE)

    @property
    def name(self) -> str:
        """The swap engine's name."""
        return self._swapper.name

    def restorer(self, options: SwapOptions) -> str:
        """The name of the restorer that ``options`` lead to, or ``none``."""
        runs = self._restorer is not None and options.restore and options.visibility > 0
        return self._restorer.name if self._restorer is not None and runs else "none"

    def identify(self, images: Sequence[Image], field: str, check: Check) -> Reference:
        """The person whose pictures these are: the largest face of each, the first one cut out, their embeddings averaged.

        Raises NoFaceFound, naming ``field``, where a picture shows none.
        """
        largest = []
        for i, faces in enumerate(self._analyser.faces(images, check)):
            if not faces:
                which = f"picture {i + 1} of {len(images)}: " if len(images) > 1 else ""
                raise NoFaceFound(
                    field, f"{which}no face found; send a picture in which one face is large, sharp and seen from the front"
                )
            largest.append(faces[0])
        mean = np.mean([face.embedding for face in largest], axis=0)
        face = replace(largest[0], embedding=np.asarray(mean / np.linalg.norm(mean), np.float32))
        return _cut_out(images[0], face)

    def analyse(self, frames: Frames | Sequence[Image], check: Check) -> list[list[Face]]:
        """The faces in each frame, the largest first."""
        return self._analyser.faces(frames, check)

    def swap(
        self, frames: Frames, faces: Sequence[Sequence[Face]], reference: Reference, options: SwapOptions, check: Check
    ) -> Frames:
        """A copy of ``frames`` in which those ``faces``, given for each frame, are the reference's."""
        result = frames.copy()
        places = [(i, face) for i, some in enumerate(faces) for face in some]
        if not places:
            return result
        patches = self._swapper.swap([(frames[i], face) for i, face in places], reference, check)
        for (i, _), patch in zip(places, self._fitted([frames[i] for i, _ in places], patches, check), strict=True):
            check()
            paste(result[i], patch.pixels, patch.matrix, patch.mask)
        if self._restorer is not None and self.restorer(options) != "none":
            aligned = [align(face.landmarks, FFHQ) for _, face in places]
            crops = [crop(result[i], matrix, SIZE) for (i, _), matrix in zip(places, aligned, strict=True)]
            restored = self._restorer.restore(crops, options.codeformer_weight, check)
            masks = [self._mask] * len(places)
            if self._occlusion is not None:
                before = [crop(frames[i], matrix, SIZE) for (i, _), matrix in zip(places, aligned, strict=True)]
                masks = [self._mask * seen for seen in self._occlusion.visible(before, check)]
            for (i, _), matrix, pixels, mask in zip(places, aligned, restored, masks, strict=True):
                check()
                paste(result[i], pixels, matrix, mask, options.visibility)
        return result

    def _fitted(self, frames: Sequence[Image], patches: list[Patch], check: Check) -> list[Patch]:
        """The patches in the colours of the faces that they replace, and without what hides those, where that is configured."""
        if not self._colours and self._occlusion is None:
            return patches
        before = [crop(frame, patch.matrix, patch.pixels.shape[0]) for frame, patch in zip(frames, patches, strict=True)]
        if self._colours:
            patches = [
                replace(patch, pixels=match_colours(patch.pixels, old, patch.mask > 0))
                for patch, old in zip(patches, before, strict=True)
            ]
        if self._occlusion is not None:
            seen = self._occlusion.visible(before, check)
            patches = [replace(patch, mask=patch.mask * shown) for patch, shown in zip(patches, seen, strict=True)]
        return patches


def _cut_out(image: Image, face: Face) -> Reference:
    """The face with some of its surroundings, at most ``_REFERENCE_SIDE`` pixels: it travels with every chunk."""
    margin = _MARGIN * float(max(face.box[2] - face.box[0], face.box[3] - face.box[1]))
    height, width = image.shape[:2]
    left, top = (max(0, int(v - margin)) for v in face.box[:2])
    right, bottom = (min(side, int(v + margin) + 1) for side, v in zip((width, height), face.box[2:], strict=True))
    offset = np.array([left, top], np.float32)
    pixels = image[top:bottom, left:right]
    scale = min(1.0, _REFERENCE_SIDE / max(pixels.shape[:2]))
    if scale < 1:
        pixels = np.asarray(cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    box, landmarks = (
        np.asarray(points * scale, np.float32) for points in (face.box - np.tile(offset, 2), face.landmarks - offset)
    )
    return Reference(np.ascontiguousarray(pixels), replace(face, box=box, landmarks=landmarks))


def build_face_engine(settings: FaceSettings, models: FaceModels, use_cuda: bool) -> FaceEngine:
    """The production engine: insightface, and GFPGAN or CodeFormer where configured."""
    if models.gfpgan is not None and models.codeformer is not None:
        raise CheckpointRefused("`gfpgan` and `codeformer` are both configured; choose one restorer")
    restorer = None
    for name, path in (("gfpgan", models.gfpgan), ("codeformer", models.codeformer)):
        if path is not None:
            restorer = OnnxRestorer(name, path, settings, use_cuda)
    analyser = InsightFaceAnalyser(models.analysis, settings, use_cuda)
    occlusion = None if models.occlusion is None else OcclusionMask(models.occlusion, settings, use_cuda)
    return FaceEngine(
        analyser, InSwapper(models.swapper, settings, use_cuda), restorer, occlusion, colours=settings.match_colours
    )
