"""Tracking and choosing with the embeddings and landmarks of real photographs."""

from typing import Any

import cv2
import numpy as np
import pytest

from demo.face_models import face_models
from deployments.faces.analysis import OpenCVAnalyser
from deployments.settings import FaceSettings
from deployments.wire import Choice
from serve.media.samples import group, portrait, stranger
from tests.unit.deployments.faces.fake_faces import follow


@pytest.fixture(scope="module")
def analyser() -> OpenCVAnalyser:
    models = face_models()
    return OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())


MOTIONS = {"still": np.zeros(41), "pan": np.linspace(-60, 60, 41), "start and stop": np.clip(np.linspace(-200, 280, 41), 0, 80)}


@pytest.mark.parametrize("motion", MOTIONS)
def test_smoothed_detections_jitter_at_most_a_third_as_much_and_do_not_lag(analyser: OpenCVAnalyser, motion: str) -> None:
    picture = cv2.resize(stranger(), None, fx=1.2, fy=1.2)
    size = picture.shape[1::-1]
    offsets = MOTIONS[motion]
    clean = [
        cv2.warpAffine(picture, np.asarray([[1, 0, x], [0, 1, 0]], np.float32), size, borderMode=cv2.BORDER_REFLECT)
        for x in offsets
    ]
    rng = np.random.default_rng(0)
    noisy = [np.clip(frame + rng.normal(0, 12, frame.shape), 0, 255).astype(np.uint8) for frame in clean]
    found = analyser.faces(noisy)
    seen = np.stack([faces[0].landmarks for faces in found])
    steady = np.stack([faces[0].landmarks for faces in follow(found)])
    moved = np.stack([offsets, np.zeros_like(offsets)], axis=-1)[:, None]

    def jitter(landmarks: Any) -> float:
        return float(np.abs(np.diff(landmarks - moved, axis=0)).mean())

    assert jitter(steady) <= jitter(seen) / 3
    if motion != "still":
        # The shift in time at which the smoothed path is nearest to the detections must be small.
        paths = [landmarks.mean(axis=1)[:, 0] for landmarks in (steady, seen)]
        shifts = np.linspace(-3, 3, 61)
        frames = np.arange(len(offsets), dtype=float)
        inner = slice(4, -4)
        apart = [np.abs(np.interp(frames - shift, frames, paths[1]) - paths[0])[inner].mean() for shift in shifts]
        assert abs(shifts[int(np.argmin(apart))]) <= 1


@pytest.mark.parametrize("number", range(6))
def test_each_member_of_a_group_is_found_by_a_poor_image_of_them(analyser: OpenCVAnalyser, number: int) -> None:
    """The image is flipped, made smaller and saved as JPEG of quality 40."""
    people = analyser.faces([group()])[0]
    left, top, right, bottom = people[number].box
    margin = 0.5 * (right - left)
    cut = group()[max(0, int(top - margin)) : int(bottom + margin), max(0, int(left - margin)) : int(right + margin), ::-1]
    small = cv2.resize(cut[:, ::-1], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 40])
    decoded: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    poor = np.ascontiguousarray(decoded[:, :, ::-1])
    target = analyser.faces([poor])[0][0].embedding
    ((chosen,),) = follow([people], Choice(target=target))
    np.testing.assert_array_equal(chosen.box, people[number].box)


def test_somebody_who_is_not_in_the_image_is_not_found(analyser: OpenCVAnalyser) -> None:
    people = analyser.faces([group()])[0]
    for absent in (portrait(), stranger()[::1]):
        known = analyser.faces([absent])[0][0].embedding
        # The stranger is one of the group.
        if max(float(known @ one.embedding) for one in people) < 0.9:
            assert follow([people], Choice(target=known)) == [()]
