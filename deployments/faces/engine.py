"""The face engine: an analyser, a swapper and perhaps a restorer.

They work on all frames of a chunk together.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np

from deployments.errors import CheckpointRefused, NoFaceFound
from deployments.faces.analysis import FaceAnalyser, InsightFaceAnalyser, OpenCVAnalyser
from deployments.faces.compositing.alignment import align, crop
from deployments.faces.compositing.colour import match_colours, match_saturation
from deployments.faces.compositing.paste import Mask, box_mask, padded_mask, paste
from deployments.faces.occlusion import OcclusionMask
from deployments.faces.restore import OnnxRestorer, Restorer
from deployments.faces.swap import AlignmentSwapper, OnnxSwapper, Patch, Swapper
from deployments.faces.upright import UprightAnalyser
from deployments.settings import AlignmentFaceModels, FaceModels, FaceSettings
from deployments.wire import Face, Frames, Image, Reference, References, SwapOptions

Check = Callable[[], None]
"""Called between pieces of work; it raises Cancelled if the result is no longer needed."""
Place = tuple[int, Face]
"""The number of a frame in its chunk, and a face in it."""
_AT_ONCE = 16
"""The most faces whose crops are in memory together, at 512 pixels a side: a frame may show
hundreds."""
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
    given = {name: path for name in ("gfpgan", "codeformer", "restorer") if (path := getattr(models, name)) is not None}
    if len(given) > 1:
        names = " and ".join(f"`{name}`" for name in given)
        raise CheckpointRefused(f"{names} are configured together; choose one restorer")
    restorer = None
    for name, path in given.items():
        restorer = OnnxRestorer(name, path, settings=settings, use_cuda=use_cuda)
    return FaceEngine(
        UprightAnalyser(InsightFaceAnalyser(models.analysis, settings, use_cuda), settings.max_faces),
        OnnxSwapper(models.swapper, settings, use_cuda, models=models),
        restorer=restorer,
        occlusion=None if models.occlusion is None else OcclusionMask(models.occlusion, settings, use_cuda),
        colours=settings.match_colours,
    )


def _build_alignment_engine(settings: FaceSettings, models: AlignmentFaceModels) -> "FaceEngine":
    if settings.device == "cuda":
        raise CheckpointRefused(
            "the face swap by alignment (the demo's) runs on the CPU; set `device: auto`, or configure `models.faces`"
        )
    analyser = UprightAnalyser(OpenCVAnalyser(models.detector, models.recogniser, settings), settings.max_faces)
    return FaceEngine(analyser, AlignmentSwapper())


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
        for i, image in enumerate(images):
            # One by one: images that are analysed together are taken for frames of one video.
            (faces,) = self._analyser.faces([image], check)
            certain = [face for face in faces if face.certain]
            if not certain:
                which = f"image {i + 1} of {len(images)}: " if len(images) > 1 else ""
                what = "a face whose features cannot be told apart" if faces else "no face found"
                raise NoFaceFound(
                    field, f"{which}{what}; send an image in which one face is large, sharp and seen from the front"
                )
            largest.append(certain[0])
        mean = np.mean([face.embedding for face in largest], axis=0)
        face = replace(largest[0], embedding=np.asarray(mean / np.linalg.norm(mean), np.float32))
        parses = self._occlusion is not None and self._occlusion.parses
        return replace(_cut_out(images[0], face), parsed=parses)

    def analyse(self, frames: Frames | Sequence[Image], check: Check) -> list[list[Face]]:
        """Return the faces in each frame, the largest first."""
        return self._analyser.faces(frames, check)

    def swap(
        self, frames: Frames, faces: Sequence[Sequence[Face]], *, reference: References, options: SwapOptions, check: Check
    ) -> Frames:
        """Return a copy of ``frames`` in which ``faces`` show the reference's face.

        With several references, ``source`` of each face says which one.

        ``faces`` holds the faces to replace in each frame; those that are not certain are left
        alone. ``check`` raises Cancelled to stop the work.
        """
        result = frames.copy()
        places = [(i, face) for i, frame_faces in enumerate(faces) for face in frame_faces if face.certain]
        references = (reference,) if isinstance(reference, Reference) else reference
        for number, one in enumerate(references):
            replaced = [(i, face) for i, face in places if len(references) == 1 or face.source == number]
            for group in _groups(replaced, _AT_ONCE):
                self._swap_group(frames, result, group, reference=one, options=options, check=check)
        if self._restorer is not None and self.restorer(options) != "none":
            at_once = max(1, _AT_ONCE * 512**2 // self._restorer.size**2)
            for group in _groups(places, at_once):
                self._restore_group(self._restorer, frames, result=result, places=group, options=options, check=check)
        if options.blend < 1:
            for i in {i for i, _ in places}:
                check()
                cv2.addWeighted(result[i], options.blend, frames[i], 1 - options.blend, 0, dst=result[i])
        return result

    def _swap_group(
        self,
        frames: Frames,
        result: Frames,
        places: Sequence[Place],
        *,
        reference: Reference,
        options: SwapOptions,
        check: Check,
    ) -> None:
        patches = self._swapper.swap([(frames[i], face) for i, face in places], reference, check)
        fitted = self._fitted([frames[i] for i, _ in places], patches, options=options, check=check)
        for (i, _), patch in zip(places, fitted, strict=True):
            check()
            paste(result[i], patch.pixels, matrix=patch.matrix, mask=patch.mask)

    def _restore_group(
        self,
        restorer: Restorer,
        frames: Frames,
        result: Frames,
        places: Sequence[Place],
        *,
        options: SwapOptions,
        check: Check,
    ) -> None:
        aligned = [align(face.landmarks, restorer.template) for _, face in places]
        crops = [crop(result[i], matrix, restorer.size) for (i, _), matrix in zip(places, aligned, strict=True)]
        restored = restorer.restore(crops, options.codeformer_weight, check)
        masks = [_padded(box_mask(restorer.size), options)] * len(places)
        if self._occlusion is not None:
            originals = [crop(frames[i], matrix, restorer.size) for (i, _), matrix in zip(places, aligned, strict=True)]
            visible = self._occlusion.visible(originals, check, options.regions)
            masks = [mask * shown for mask, shown in zip(masks, visible, strict=True)]
        for (i, _), matrix, pixels, mask in zip(places, aligned, restored, masks, strict=True):
            check()
            paste(result[i], pixels, matrix=matrix, mask=mask, share=options.visibility)

    def _fitted(self, frames: Sequence[Image], patches: list[Patch], *, options: SwapOptions, check: Check) -> list[Patch]:
        """Fit the patches to the frames, as configured.

        They take on the colours of the original faces and lose the pixels where something hides a
        face, and those that the options leave out.
        """
        if any(options.padding):
            patches = [replace(patch, mask=_padded(patch.mask, options)) for patch in patches]
        if not self._colours and self._occlusion is None:
            return patches
        originals = [crop(frame, patch.matrix, patch.pixels.shape[0]) for frame, patch in zip(frames, patches, strict=True)]
        if self._colours:
            patches = [
                replace(patch, pixels=_recoloured(patch, original)) for patch, original in zip(patches, originals, strict=True)
            ]
        if self._occlusion is not None:
            masks = self._occlusion.visible(originals, check, options.regions)
            patches = [replace(patch, mask=patch.mask * visible) for patch, visible in zip(patches, masks, strict=True)]
        return patches


def _recoloured(patch: Patch, original: Image) -> Image:
    inside = patch.mask > 0
    return match_saturation(match_colours(patch.pixels, original, inside), original, inside)


def _padded(mask: Mask, options: SwapOptions) -> Mask:
    return mask * padded_mask(mask.shape[0], options.padding) if any(options.padding) else mask


def _groups(places: Sequence[Place], size: int) -> Iterator[Sequence[Place]]:
    return (places[start : start + size] for start in range(0, len(places), size))


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
