"""`python -m benchmarks.turned_faces`: how well turned heads are swapped, every 15 degrees.

The result is turned upright again, and its likeness to the reference (cosine of SFace's embeddings)
is divided by that of the upright swap; the bar is 0.8. A face that is left alone is shown as
``alone``. The demo's detector and insightface's path look for the faces; the latter runs on the
demo's models, since insightface's own are not ours to distribute.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np

from demo.face_models import face_models
from deployments.faces.analysis import InsightFaceAnalyser, OpenCVAnalyser
from deployments.faces.engine import FaceEngine
from deployments.faces.swap import AlignmentSwapper
from deployments.faces.upright import UprightAnalyser
from deployments.settings import FaceSettings
from deployments.wire import Face, Image, SwapOptions
from serve.media.samples import portrait, stranger

STEP = 15
BAR = 0.8


def unwatched() -> None:
    """A check that never stops the engine."""


def opencv() -> OpenCVAnalyser:
    """Return the analyser of the demo."""
    models = face_models()
    return OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())


def insightface() -> InsightFaceAnalyser:
    """Return insightface's path around the demo's models, which know faces as its own do."""
    from insightface.utils import face_align

    inner = opencv()

    def detect(bgr: Image, **_: object) -> Any:
        found = inner.detect(np.ascontiguousarray(bgr[:, :, ::-1]))
        boxes = np.array([[*one.box, one.score] for one in found], np.float32).reshape(-1, 5)
        return boxes, np.stack([one.landmarks for one in found]) if found else None

    def features(crops: list[Any]) -> Any:
        return np.stack([inner._recogniser.feature(crop).ravel() for crop in crops])

    analyser: Any = InsightFaceAnalyser.__new__(InsightFaceAnalyser)
    analyser.detection_size, analyser._batch = 640, 16
    analyser._analysis = SimpleNamespace(det_model=SimpleNamespace(detect=detect))
    analyser._recogniser = SimpleNamespace(input_size=(112, 112), get_feat=features)
    analyser._align = face_align.norm_crop
    return cast(InsightFaceAnalyser, analyser)


PATHS: dict[str, Callable[[], OpenCVAnalyser | InsightFaceAnalyser]] = {"opencv": opencv, "insightface": insightface}
"""The analysers by their names."""


def turned(image: Image, degrees: float) -> tuple[Image, Any]:
    """Return the whole image, turned on grey, and the matrix."""
    height, width = image.shape[:2]
    side = int(np.hypot(height, width)) + 1
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    matrix[:, 2] += [(side - width) / 2, (side - height) / 2]
    return np.asarray(cv2.warpAffine(image, matrix, (side, side), borderValue=(127, 127, 127))), matrix


def swapped(engine: FaceEngine, image: Image, reference: Any) -> tuple[Image, list[Face]]:
    """Return the image with its largest face replaced, and the faces that it showed."""
    (faces,) = engine.analyse([image], unwatched)
    frames = engine.swap(image[None], [faces[:1]], reference=reference, options=SwapOptions(), check=unwatched)
    return frames[0], faces


def ratios(engine: FaceEngine, source: Image, other: Image) -> dict[int, float | None]:
    """Return the likeness of each turned result over that of the upright one.

    It is None where the face was left alone, untouched.
    """
    reference = engine.identify([other], "face", unwatched)
    judge = opencv()

    def likeness(image: Image) -> float:
        return float(judge.faces([image])[0][0].embedding @ reference.face.embedding)

    upright = likeness(swapped(engine, source, reference)[0])
    found: dict[int, float | None] = {}
    for degrees in range(STEP, 360, STEP):
        image, matrix = turned(source, degrees)
        result, faces = swapped(engine, image, reference)
        if not faces or not faces[0].certain:
            assert (result == image).all(), "a face that is left alone was changed"
            found[degrees] = None
            continue
        back = cv2.warpAffine(result, cv2.invertAffineTransform(matrix), source.shape[1::-1])
        found[degrees] = likeness(np.asarray(back)) / upright
    return found


def main() -> None:
    """Print a table with a row for each turn."""
    people = {"astronaut": (portrait(), stranger()), "person 1": (stranger(), portrait())}
    columns = {}
    for path, analyser in PATHS.items():
        engine = FaceEngine(UprightAnalyser(analyser()), AlignmentSwapper())
        for who, (source, other) in people.items():
            columns[f"{path}, {who}"] = ratios(engine, source, other)
    print("| degrees |" + "|".join(f" {name} " for name in columns) + "|")
    print("|---" * (1 + len(columns)) + "|")
    for degrees in range(STEP, 360, STEP):
        cells = (found[degrees] for found in columns.values())
        print(f"| {degrees} |" + "|".join(" alone " if cell is None else f" {cell:.2f} " for cell in cells) + "|")
    values = [value for found in columns.values() for value in found.values() if value is not None]
    alone = sum(map(len, columns.values())) - len(values)
    print(f"lowest {min(values):.2f} (bar {BAR}), {alone} of {alone + len(values)} left alone")


if __name__ == "__main__":
    main()
