"""The face engine: an analyser, a swapper and perhaps a restorer, applied to pictures."""

import numpy as np

from deployments.errors import CheckpointRefused, NoFaceFound
from deployments.faces.analysis import FaceAnalyser, InsightFaceAnalyser
from deployments.faces.paste import FFHQ, align, box_mask, crop, paste
from deployments.faces.restore import SIZE, OnnxRestorer, Restorer
from deployments.faces.swap import InSwapper, Swapper
from deployments.settings import FaceModels, FaceSettings
from deployments.wire import Face, Image, Reference, SwapOptions

_MARGIN = 0.6  # of the face's size: what of its surroundings travels with a reference


class FaceEngine:
    """Swaps the largest face of a picture; used from one thread at a time."""

    def __init__(self, analyser: FaceAnalyser, swapper: Swapper, restorer: Restorer | None) -> None:
        self._analyser = analyser
        self._swapper = swapper
        self._restorer = restorer
        self._mask = box_mask(SIZE)

    @property
    def name(self) -> str:
        """The swap engine's name."""
        return self._swapper.name

    def restorer(self, options: SwapOptions) -> str:
        """The name of the restorer that ``options`` lead to, or ``none``."""
        runs = self._restorer is not None and options.restore and options.visibility > 0
        return self._restorer.name if self._restorer is not None and runs else "none"

    def identify(self, image: Image, field: str) -> Reference:
        """The largest face in ``image``, cut out; raises NoFaceFound, naming ``field``, if there is none."""
        faces = self._analyser.faces(image)
        if not faces:
            raise NoFaceFound(field, "no face found; send a picture in which one face is large, sharp and seen from the front")
        face = faces[0]
        margin = _MARGIN * float(max(face.box[2] - face.box[0], face.box[3] - face.box[1]))
        height, width = image.shape[:2]
        left, top = (max(0, int(v - margin)) for v in face.box[:2])
        right, bottom = (min(side, int(v + margin) + 1) for side, v in zip((width, height), face.box[2:], strict=True))
        offset = np.array([left, top], np.float32)
        moved = Face(face.box - np.tile(offset, 2), face.landmarks - offset, face.score, face.embedding)
        return Reference(np.ascontiguousarray(image[top:bottom, left:right]), moved)

    def swap(self, frame: Image, reference: Reference, options: SwapOptions) -> tuple[Image, int]:
        """A copy of ``frame`` with its largest face swapped, and the number of faces found (0: the frame itself, unchanged)."""
        faces = self._analyser.faces(frame)
        if not faces:
            return frame, 0
        result = frame.copy()
        patch, matrix, mask = self._swapper.swap(frame, faces[0], reference)
        paste(result, patch, matrix, mask)
        if self._restorer is not None and options.restore and options.visibility > 0:
            aligned = align(faces[0].landmarks, FFHQ)
            restored = self._restorer.restore(crop(result, aligned, SIZE), options.codeformer_weight)
            paste(result, restored, aligned, self._mask, options.visibility)
        return result, len(faces)


def build_face_engine(settings: FaceSettings, models: FaceModels, use_cuda: bool) -> FaceEngine:
    """The production engine: insightface, and GFPGAN or CodeFormer where configured."""
    if models.gfpgan is not None and models.codeformer is not None:
        raise CheckpointRefused("`gfpgan` and `codeformer` are both configured; choose one restorer")
    restorer = None
    for name, path in (("gfpgan", models.gfpgan), ("codeformer", models.codeformer)):
        if path is not None:
            restorer = OnnxRestorer(name, path, settings, use_cuda)
    analyser = InsightFaceAnalyser(models.analysis, settings, use_cuda)
    return FaceEngine(analyser, InSwapper(models.swapper, settings, use_cuda), restorer)
