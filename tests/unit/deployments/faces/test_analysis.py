"""The analysers around detectors and recognisers that are fakes."""

from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments.errors import Cancelled, CheckpointRefused
from deployments.faces.analysis import FaceAnalyser, InsightFaceAnalyser, OpenCVAnalyser
from deployments.settings import FaceSettings
from deployments.wire import Image

POINTS = np.arange(10).reshape(5, 2)


class Detector:
    """Finds as many faces as the image's red channel says, each larger than the one before."""

    def __init__(self) -> None:
        self.input_size = (0, 0)
        self.sizes: list[tuple[int, int]] = []

    def setInputSize(self, size: tuple[int, int]) -> None:  # noqa: N802 (OpenCV's name)
        self.input_size = size

    def _sides(self, bgr: Image) -> list[int]:
        self.sizes.append((bgr.shape[1], bgr.shape[0]))
        return [10 * (i + 1) for i in range(int(bgr[0, 0, 2]))]

    def detect(self, bgr: Image, **_: object) -> Any:
        """Answer as OpenCV's detector does, or as insightface's if it is asked its way."""
        sides = self._sides(bgr)
        if not _:
            assert self.input_size == self.sizes[-1]
            rows = [[2, 3, side, side, *POINTS.ravel(), 0.75] for side in sides]
            return 1, np.array(rows, np.float32) if rows else None
        boxes = np.array([[2, 3, 2 + side, 3 + side, 0.75] for side in sides], np.float32).reshape(-1, 5)
        return boxes, np.stack([POINTS] * len(sides)) if sides else None


class Recogniser:
    """Gives each face an embedding of length 2 whose direction is the number of the face."""

    input_size = (112, 112)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.count = 0

    def alignCrop(self, bgr: Image, row: Any) -> Image:  # noqa: N802 (OpenCV's name)
        return bgr

    def feature(self, crop: Image) -> Any:
        self.count += 1
        return 2 * np.eye(16, dtype=np.float32)[None, self.count - 1]

    def get_feat(self, crops: Sequence[Image]) -> Any:
        self.batches.append(len(crops))
        return np.concatenate([self.feature(crop) for crop in crops])


def opencv(longest: int = 640) -> tuple[OpenCVAnalyser, Detector]:
    analyser: Any = OpenCVAnalyser.__new__(OpenCVAnalyser)
    detector = Detector()
    analyser._detector, analyser._recogniser = detector, Recogniser()
    analyser.detection_size, analyser._lock = longest, Lock()
    return analyser, detector


def insightface(batch: int = 2) -> tuple[InsightFaceAnalyser, Recogniser]:
    analyser: Any = InsightFaceAnalyser.__new__(InsightFaceAnalyser)
    recogniser = Recogniser()
    analyser._analysis = SimpleNamespace(det_model=Detector())
    analyser._recogniser, analyser._batch = recogniser, batch
    analyser._align = lambda bgr, landmarks, size: np.zeros((size, size, 3), np.uint8)
    return analyser, recogniser


def image(faces: int, width: int = 64, height: int = 48) -> Image:
    picture = np.zeros((height, width, 3), np.uint8)
    picture[..., 0] = faces
    return picture


@pytest.mark.parametrize("make", [opencv, insightface])
def test_faces_are_sorted_by_size_and_embeddings_have_length_1(make: Any) -> None:
    analyser: FaceAnalyser = make()[0]
    found = analyser.faces([image(2), image(0), image(3)])
    assert [[float(face.box[2] - face.box[0]) for face in faces] for faces in found] == [[20, 10], [], [30, 20, 10]]
    # Embeddings stay with their faces: they were computed in the order of detection.
    assert [[int(face.embedding.argmax()) for face in faces] for faces in found] == [[1, 0], [], [4, 3, 2]]
    for face in (face for faces in found for face in faces):
        assert np.linalg.norm(face.embedding) == pytest.approx(1)
        assert face.score == pytest.approx(0.75)
        np.testing.assert_array_equal(face.landmarks, POINTS)
        assert {face.box.dtype, face.landmarks.dtype, face.embedding.dtype} == {np.dtype(np.float32)}


@pytest.mark.parametrize("make", [opencv, insightface])
@pytest.mark.parametrize(("width", "height"), [(15, 200), (200, 15), (16 * 65, 16), (16, 16 * 65)])
def test_images_that_a_detector_cannot_scale_have_no_face(make: Any, width: int, height: int) -> None:
    assert make()[0].faces([image(1, width, height), image(1)])[0] == []


@pytest.mark.parametrize("make", [opencv, insightface])
def test_a_cancelled_request_ends_at_the_next_image(make: Any) -> None:
    checks: list[int] = []

    def cancel_at_second() -> None:
        checks.append(1)
        if len(checks) == 2:
            raise Cancelled

    with pytest.raises(Cancelled):
        make()[0].faces([image(1)] * 3, cancel_at_second)
    assert len(checks) == 2


def test_embeddings_of_all_images_are_computed_in_batches() -> None:
    analyser, recogniser = insightface(batch=2)
    analyser.faces([image(1), image(3), image(1)])
    assert recogniser.batches == [2, 2, 1]


def test_a_large_image_is_scaled_down_for_detection_only() -> None:
    analyser, detector = opencv(longest=32)
    ((face,),) = analyser.faces([image(1, 64, 48)])
    assert detector.sizes == [(32, 24)]
    np.testing.assert_array_equal(face.box, [4, 6, 24, 26])
    np.testing.assert_array_equal(face.landmarks, POINTS * 2)


def test_missing_models_are_refused_and_never_downloaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointRefused, match="no such folder"):
        InsightFaceAnalyser(tmp_path / "buffalo_l", FaceSettings(device="cpu"), use_cuda=False)
    with pytest.raises(CheckpointRefused, match=r"yunet\.onnx: no such file; for the demo's models"):
        OpenCVAnalyser(tmp_path / "yunet.onnx", tmp_path / "sface.onnx", FaceSettings(device="cpu"))
