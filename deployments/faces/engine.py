"""The face engine: an analyser, a swapper and perhaps a restorer.

They work on all frames of a chunk together.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import cv2
import numpy as np

from deployments.errors import CheckpointRefused, NoFaceFound
from deployments.faces.analysis import FaceAnalyser, InsightFaceAnalyser, OpenCVAnalyser
from deployments.faces.compositing.alignment import FFHQ, align, crop
from deployments.faces.compositing.colour import match_colours
from deployments.faces.compositing.paste import box_mask, paste
from deployments.faces.occlusion import OcclusionMask
from deployments.faces.restore import SIZE, OnnxRestorer, Restorer
from deployments.faces.swap import AlignmentSwapper, InSwapper, Patch, Swapper
from deployments.settings import AlignmentFaceModels, FaceModels, FaceSettings
from deployments.wire import Face, Frames, Image, Reference, SwapOptions

Check = Callable[[], None]
"""Called between pieces of work; it raises Cancelled if the result is no longer needed."""
_REFERENCE_SIDE = 640
_MARGIN = 0.6  # in sizes of the face: the surroundings that a reference includes


def build_face_engine(settings: FaceSettings, models: FaceModels | AlignmentFaceModels, use_cuda: bool) -> "FaceEngine":
    """Build the engine for the configured models.

    ``FaceModels`` give insightface's analysis and inswapper, with GFPGAN or CodeFormer if
    configured; ``AlignmentFaceModels`` give YuNet, SFace and the swap by alignment, on a CPU.
    Raises CheckpointRefused for files that are missing or wrong, and for settings that the models
    cannot meet.
    """
    if isinstance(models, AlignmentFaceModels):
        return _build_alignment_engine(settings, models)
    if models.gfpgan is not None and models.codeformer is not None:
        raise CheckpointRefused("`gfpgan` and `codeformer` are both configured; choose one restorer")
    restorer = None
    for name, path in (("gfpgan", models.gfpgan), ("codeformer", models.codeformer)):
        if path is not None:
            restorer = OnnxRestorer(name, path, settings=settings, use_cuda=use_cuda)
    return FaceEngine(
        InsightFaceAnalyser(models.analysis, settings, use_cuda),
        InSwapper(models.swapper, settings, use_cuda),
        restorer=restorer,
        occlusion=None if models.occlusion is None else OcclusionMask(models.occlusion, settings, use_cuda),
        colours=settings.match_colours,
    )


def _build_alignment_engine(settings: FaceSettings, models: AlignmentFaceModels) -> "FaceEngine":
    if settings.device == "cuda":
        raise CheckpointRefused(
            "the face swap by alignment (the demo's) runs on the CPU; set `device: auto`, or configure `models.faces`"
        )
    return FaceEngine(OpenCVAnalyser(models.detector, models.recogniser, settings), AlignmentSwapper())


class FaceEngine:
    """Finds faces and swaps them. Several threads may use one engine."""

    def __init__(
        self,
        analyser: FaceAnalyser,
        swapper: Swapper,
        *,
        restorer: Restorer | None = None,
        occlusion: OcclusionMask | None = None,
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
        """The name of the swapper."""
        return self._swapper.name

    def restorer(self, options: SwapOptions) -> str:
        """Return the name of the restorer that runs with ``options``, or ``none``."""
        runs = self._restorer is not None and options.restore and options.visibility > 0
        return self._restorer.name if self._restorer is not None and runs else "none"

    def identify(self, images: Sequence[Image], field: str, check: Check) -> Reference:
        """Return the identity of the largest face in each of ``images``, averaged.

        The pixels of the reference come from the first image. Raises NoFaceFound for the request's
        ``field`` if an image shows no face.
        """
        largest = []
        for i, faces in enumerate(self._analyser.faces(images, check)):
            if not faces:
                which = f"image {i + 1} of {len(images)}: " if len(images) > 1 else ""
                raise NoFaceFound(
                    field, f"{which}no face found; send an image in which one face is large, sharp and seen from the front"
                )
            largest.append(faces[0])
        mean = np.mean([face.embedding for face in largest], axis=0)
        face = replace(largest[0], embedding=np.asarray(mean / np.linalg.norm(mean), np.float32))
        return _cut_out(images[0], face)

    def analyse(self, frames: Frames | Sequence[Image], check: Check) -> list[list[Face]]:
        """Return the faces in each frame, the largest first."""
        return self._analyser.faces(frames, check)

    def swap(
        self, frames: Frames, faces: Sequence[Sequence[Face]], *, reference: Reference, options: SwapOptions, check: Check
    ) -> Frames:
        """Return a copy of ``frames`` in which ``faces`` show the reference's face.

        ``faces`` holds the faces to replace in each frame. ``check`` raises Cancelled to stop the
        work.
        """
        result = frames.copy()
        places = [(i, face) for i, frame_faces in enumerate(faces) for face in frame_faces]
        if not places:
            return result
        patches = self._swapper.swap([(frames[i], face) for i, face in places], reference, check)
        for (i, _), patch in zip(places, self._fitted([frames[i] for i, _ in places], patches, check), strict=True):
            check()
            paste(result[i], patch.pixels, matrix=patch.matrix, mask=patch.mask)
        if self._restorer is not None and self.restorer(options) != "none":
            aligned = [align(face.landmarks, FFHQ) for _, face in places]
            crops = [crop(result[i], matrix, SIZE) for (i, _), matrix in zip(places, aligned, strict=True)]
            restored = self._restorer.restore(crops, options.codeformer_weight, check)
            masks = [self._mask] * len(places)
            if self._occlusion is not None:
                originals = [crop(frames[i], matrix, SIZE) for (i, _), matrix in zip(places, aligned, strict=True)]
                masks = [self._mask * visible for visible in self._occlusion.visible(originals, check)]
            for (i, _), matrix, pixels, mask in zip(places, aligned, restored, masks, strict=True):
                check()
                paste(result[i], pixels, matrix=matrix, mask=mask, share=options.visibility)
        return result

    def _fitted(self, frames: Sequence[Image], patches: list[Patch], check: Check) -> list[Patch]:
        """Fit the patches to the frames, as configured.

        They take on the colours of the original faces and lose the pixels where something hides a
        face.
        """
        if not self._colours and self._occlusion is None:
            return patches
        originals = [crop(frame, patch.matrix, patch.pixels.shape[0]) for frame, patch in zip(frames, patches, strict=True)]
        if self._colours:
            patches = [
                replace(patch, pixels=match_colours(patch.pixels, original, patch.mask > 0))
                for patch, original in zip(patches, originals, strict=True)
            ]
        if self._occlusion is not None:
            masks = self._occlusion.visible(originals, check)
            patches = [replace(patch, mask=patch.mask * visible) for patch, visible in zip(patches, masks, strict=True)]
        return patches


def _cut_out(image: Image, face: Face) -> Reference:
    """Cut out the face with some surroundings, at most ``_REFERENCE_SIDE`` pixels a side.

    It is small because it travels with every chunk.
    """
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
