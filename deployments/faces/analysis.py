"""Finds faces in images and computes an embedding for each; there are two analysers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, Protocol

import cv2
import numpy as np

from deployments.errors import CheckpointRefused
from deployments.faces.detection import Detection
from deployments.faces.models.batch import batch_of
from deployments.faces.models.graph import fix_shape, read_model, take_float32
from deployments.faces.models.session import open_session, session_options
from deployments.settings import FaceSettings
from deployments.wire import Face, Frames, Image


def _never_cancelled() -> None:
    """Do nothing: the check for work that cannot be cancelled."""


class FaceAnalyser(Protocol):
    """Detects faces and computes their embeddings."""

    name: str

    def faces(self, images: Frames | Sequence[Image], check: Callable[[], None] = _never_cancelled) -> list[list[Face]]:
        """Return the faces in each uint8 RGB image, the largest first.

        ``check`` is called once per image; it raises Cancelled to stop the work.
        """


class InsightFaceAnalyser:
    """An insightface model pack such as buffalo_l: SCRFD detects, ArcFace identifies.

    The results are those of ``insightface.app.FaceAnalysis.get``, but the embeddings of all images
    are computed together.
    """

    name = "insightface"
    enlarges = True
    larger = 1.0

    def __init__(self, folder: Path, settings: FaceSettings, use_cuda: bool) -> None:
        if not folder.is_dir():  # insightface would try to download it
            raise CheckpointRefused(f"{folder}: no such folder; it must contain the ONNX files of an insightface model pack")
        from insightface.app import FaceAnalysis
        from insightface.utils import face_align

        self._align = face_align.norm_crop
        self._analysis = FaceAnalysis(
            name=str(folder.resolve()),
            allowed_modules=["detection", "recognition"],
            providers=["CPUExecutionProvider"],
            sess_options=session_options(settings),
            static_shape_sessions=False,
        )
        for task in ("detection", "recognition"):
            if task not in self._analysis.models:
                raise CheckpointRefused(f"{folder}: none of its ONNX files is a {task} model")
        self.detection_size = settings.detection_size
        size = (settings.detection_size, settings.detection_size)
        self._analysis.prepare(ctx_id=-1, det_thresh=settings.detection_threshold, det_size=size)
        self._recogniser = self._analysis.models["recognition"]
        for model, fixed in ((self._analysis.det_model, True), (self._recogniser, False)):
            path = Path(model.model_file)
            graph = take_float32(read_model(path))
            if use_cuda:
                # insightface opens its sessions on the CPU, for images of any size. The engine
                # always uses one size, so that the sessions can be captured as CUDA graphs. It is
                # the file's size if that is fixed, and otherwise the one in the settings.
                width, height = model.input_size
                changed = fix_shape(graph, (1, 3, height, width)) if fixed else graph.SerializeToString()
                model.session = open_session(path, settings, use_cuda=use_cuda, model=changed)
            elif any(value.type == "tensor(float16)" for value in model.session.get_inputs()):
                model.session = open_session(path, settings, use_cuda=use_cuda, model=graph.SerializeToString())
        self._batch = batch_of(self._recogniser.session, Path(self._recogniser.model_file).name)

    def faces(self, images: Frames | Sequence[Image], check: Callable[[], None] = _never_cancelled) -> list[list[Face]]:
        """Return the faces in each image; see ``FaceAnalyser``. All are found in the same way."""
        return self.describe(images, _detect_all(self.detect, images, check), check)

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in an image; see ``Analyser``."""
        if not _is_large_enough(image):
            return []
        boxes, points = self._analysis.det_model.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), max_num=0, metric="default")
        found = zip(boxes, points if len(boxes) else (), strict=True)
        return [Detection(_f32(box[:4]), _f32(landmarks), float(box[4])) for box, landmarks in found]

    def describe(
        self, images: Frames | Sequence[Image], found: Sequence[Sequence[Detection]], check: Callable[[], None]
    ) -> list[list[Face]]:
        """Return the faces with their embeddings; see ``Analyser``."""
        places: list[tuple[int, Detection]] = []
        aligned: list[Any] = []
        for i, detections in enumerate(found):
            if detections:
                bgr = cv2.cvtColor(images[i], cv2.COLOR_RGB2BGR)
                places += [(i, one) for one in detections]
                aligned += [self._align(bgr, one.landmarks, self._recogniser.input_size[0]) for one in detections]
        features: list[Any] = []
        for start in range(0, len(aligned), self._batch):
            check()
            features += [*self._recogniser.get_feat(aligned[start : start + self._batch])]
        faces: list[list[Face]] = [[] for _ in images]
        for (i, one), feature in zip(places, features, strict=True):
            faces[i].append(_face(one, feature))
        return [_largest_first(image_faces) for image_faces in faces]


class OpenCVAnalyser:
    """OpenCV's YuNet detector and SFace recogniser, which are small enough for a CPU."""

    name = "opencv"
    enlarges = False
    larger = 1.07
    """See ``Analyser``. For six people it was 0.99 to 1.09; of 1.00, 1.03 and 1.07 this one gave
    the swaps that were most like the reference."""

    def __init__(self, detector: Path, recogniser: Path, settings: FaceSettings) -> None:
        for path in (detector, recogniser):
            if not path.is_file():
                raise CheckpointRefused(f"{path}: no such file; for the demo's models, run `python -m demo`")
        threshold = settings.detection_threshold
        self._detector = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), score_threshold=threshold)
        self._recogniser = cv2.FaceRecognizerSF.create(str(recogniser), "")
        self.detection_size = settings.detection_size
        # Setting the size of the detector's input and running it belong together.
        self._lock = Lock()

    def faces(self, images: Frames | Sequence[Image], check: Callable[[], None] = _never_cancelled) -> list[list[Face]]:
        """Return the faces in each image; see ``FaceAnalyser``. All are found in the same way."""
        return self.describe(images, _detect_all(self.detect, images, check), check)

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in an image; see ``Analyser``."""
        if not _is_large_enough(image):
            return []
        bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        height, width = bgr.shape[:2]
        scale = min(1.0, self.detection_size / max(height, width))
        scaled = bgr if scale == 1.0 else cv2.resize(bgr, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        with self._lock:
            self._detector.setInputSize((scaled.shape[1], scaled.shape[0]))
            _, rows = self._detector.detect(scaled)
        found = []
        for row in [] if rows is None else rows:
            x, y, w, h = row[:4] / scale
            found.append(Detection(_f32([x, y, x + w, y + h]), _f32(row[4:14].reshape(5, 2) / scale), float(row[14])))
        return found

    def describe(
        self, images: Frames | Sequence[Image], found: Sequence[Sequence[Detection]], check: Callable[[], None]
    ) -> list[list[Face]]:
        """Return the faces with their embeddings; see ``Analyser``."""
        faces = []
        for image, detections in zip(images, found, strict=True):
            if detections:
                check()
                bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            faces.append(_largest_first([_face(one, self._feature(bgr, one)) for one in detections]))
        return faces

    def _feature(self, bgr: Any, face: Detection) -> Any:
        row = np.zeros(15, np.float32)
        row[4:14] = face.landmarks.ravel()
        with self._lock:
            return self._recogniser.feature(self._recogniser.alignCrop(bgr, row)).ravel()


def _detect_all(
    detect: Callable[[Image], list[Detection]], images: Frames | Sequence[Image], check: Callable[[], None]
) -> list[list[Detection]]:
    found = []
    for image in images:
        check()
        found.append(detect(image))
    return found


def _face(found: Detection, feature: Any) -> Face:
    """Return a face from its detection and its embedding, which becomes one of length 1."""
    length = float(np.linalg.norm(feature))
    embedding = _f32(feature / length)
    return Face(found.box, found.landmarks, score=found.score, embedding=embedding, length=length, certain=found.certain)


def _is_large_enough(image: Image) -> bool:
    """Return whether the detectors can scale the image.

    They fail on images of a few pixels and on narrow stripes.
    """
    height, width = image.shape[:2]
    return bool(min(height, width) >= 16 and max(height, width) <= 64 * min(height, width))


def _largest_first(faces: list[Face]) -> list[Face]:
    return sorted(faces, key=lambda face: -face.area)


def _f32(values: Any) -> Any:
    return np.asarray(values, dtype=np.float32)
