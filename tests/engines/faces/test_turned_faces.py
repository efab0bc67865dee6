"""Heads that lean, lie or are upside down, by the demo's detector and by insightface's path."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.turned_faces import PATHS, opencv, ratios, swapped, turned
from deployments.errors import NoFaceFound
from deployments.faces.engine import FaceEngine
from deployments.faces.swap import AlignmentSwapper
from deployments.faces.upright import Detection, UprightAnalyser
from deployments.wire import Face, Image, SwapOptions
from serve.media.samples import group, portrait, stranger

PEOPLE = {"officer": (stranger, portrait), "astronaut": (portrait, stranger)}


def never_cancelled() -> None:
    """Do nothing."""


@pytest.fixture(scope="module", params=PATHS)
def engine(request: pytest.FixtureRequest) -> FaceEngine:
    return FaceEngine(UprightAnalyser(PATHS[request.param]()), AlignmentSwapper())


@pytest.mark.parametrize("who", PEOPLE)
def test_a_turned_head_is_swapped_as_well_as_an_upright_one(engine: FaceEngine, who: str) -> None:
    """Turned upright again, the result is 0.8 as like the reference as the upright one."""
    source, other = (make() for make in PEOPLE[who])
    found = ratios(engine, source, other)
    swapped_ones = [ratio for ratio in found.values() if ratio is not None]
    assert len(swapped_ones) >= 20, "a face that is left alone is the exception"
    assert min(swapped_ones) >= 0.8, found


@pytest.mark.parametrize("degrees", [45, 90, 180, 270])
def test_a_turned_reference_is_the_same_person(engine: FaceEngine, degrees: int) -> None:
    upright = engine.identify([stranger()], "face", never_cancelled)
    lying = engine.identify([turned(stranger(), degrees)[0]], "face", never_cancelled)
    assert upright.face.embedding @ lying.face.embedding > 0.8
    result, _ = swapped(engine, portrait(), lying)
    expected, _ = swapped(engine, portrait(), upright)
    assert np.abs(result.astype(int) - expected).mean() < 3


def test_upright_faces_are_found_as_by_the_detector_alone(engine: FaceEngine) -> None:
    for image in (group(), portrait()):
        (found,) = engine.analyse([image], never_cancelled)
        (plain,) = opencv().faces([image])
        assert len(found) == len(plain)
        sure = 0
        for one, other in zip(found, plain, strict=True):
            assert one.certain
            eyes = np.linalg.norm(other.landmarks[1] - other.landmarks[0])
            assert np.abs(one.landmarks - other.landmarks).mean() < 0.15 * eyes
            sure += bool((one.landmarks == other.landmarks).all())
        assert sure >= 1


class Scripted:
    """An analyser whose detector answers by a rule."""

    name = "scripted"
    detection_size = 640

    def __init__(self, rule: Callable[[Image], list[Detection]]) -> None:
        self._rule = rule
        self.looks = 0

    def detect(self, image: Image) -> list[Detection]:
        self.looks += 1
        return self._rule(image)

    def describe(self, images: Any, found: Sequence[Sequence[Detection]], check: Any) -> list[list[Face]]:
        return [
            [Face(one.box, one.landmarks, one.score, np.ones(1, np.float32), certain=one.certain) for one in faces]
            for faces in found
        ]


SHAPE = np.array([[-20, -20], [20, -20], [0, 2], [-16, 22], [16, 22]], np.float32)


def face_at(x: float, y: float, score: float, scale: float = 1.0, points: Any = SHAPE) -> Detection:
    box = np.array([x - 40 * scale, y - 48 * scale, x + 40 * scale, y + 48 * scale], np.float32)
    return Detection(box, np.asarray(points * scale + [x, y], np.float32), score)


def test_a_sure_upright_face_costs_no_second_look() -> None:
    analyser = Scripted(lambda image: [face_at(100, 100, 0.9)])
    faces = UprightAnalyser(analyser).faces([np.zeros((200, 200, 3), np.uint8)] * 4)
    assert analyser.looks == 4 + 3, "the first frame is looked at in three turns, for faces that lie"
    assert all(face.certain for (face,) in faces)


def leaning(degrees: float) -> Any:
    c, t = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.asarray(SHAPE @ np.array([[c, t], [-t, c]]), np.float32)


def slight(in_cuts: float) -> Scripted:
    """Return a detector that says 8 degrees of a frame's face, and ``in_cuts`` of upright cuts."""

    def rule(image: Image) -> list[Detection]:
        if image.shape == (200, 200, 3):
            return [face_at(100, 100, 0.95, points=leaning(8))]
        rows, columns, side = image.shape[0], image.shape[1], 96 if image.shape[0] % 96 == 0 else 212
        places = [(x, y) for y in range(side // 2, rows, side) for x in range(side // 2, columns, side)]
        return [face_at(x, y, 0.95, side / 192, points=leaning(in_cuts)) for x, y in places]

    return Scripted(rule)


def test_a_face_that_leans_slightly_keeps_landmarks_that_one_small_cut_confirms() -> None:
    frames = [np.zeros((200, 200, 3), np.uint8)] * 4
    analyser = slight(in_cuts=1)
    faces = UprightAnalyser(analyser).faces(frames)
    assert analyser.looks == 4 + 3 + 1, "the cuts of all frames lie in one picture"
    for (face,) in faces:
        assert face.certain
        np.testing.assert_array_equal(face.landmarks, leaning(8) + 100)


@pytest.mark.parametrize(("in_cuts", "thorough"), [(5, False), (1, True)], ids=["contradicted", "reference"])
def test_other_faces_that_lean_slightly_get_a_full_second_look(in_cuts: float, thorough: bool) -> None:
    analyser = slight(in_cuts)
    ((face,),) = UprightAnalyser(analyser).faces([np.zeros((200, 200, 3), np.uint8)], thorough=thorough)
    assert (face.landmarks != leaning(8) + 100).any()


def test_a_crowd_is_limited_to_its_largest_faces() -> None:
    crowd = [face_at(100 * i, 100, 0.95, 1 + i / 10) for i in range(9)]
    analyser = Scripted(lambda image: crowd if image.shape == (200, 900, 3) else [])
    (faces,) = UprightAnalyser(analyser, max_faces=3).faces([np.zeros((200, 900, 3), np.uint8)])
    assert sorted(round(float(face.landmarks[2, 0])) for face in faces) == [600, 700, 800]


def test_a_face_that_no_turn_confirms_is_uncertain() -> None:
    first = Scripted(lambda image: [face_at(100, 100, 0.6)] if image.shape == (200, 200, 3) else [])
    ((face,),) = UprightAnalyser(first).faces([np.zeros((200, 200, 3), np.uint8)])
    assert not face.certain


def test_a_face_with_landmarks_of_no_face_is_uncertain() -> None:
    """Every small cut shows a face, so a turn is found; the large cuts show nonsense."""
    points = np.array([[-20, 0], [20, 0], [0, 0], [-16, 1], [16, -60]], np.float32)

    def rule(image: Image) -> list[Detection]:
        if sorted(image.shape[:2]) == [106, 320]:
            return []  # the frame at half its size, turned
        if image.shape[1] == 6 * 96:
            return [face_at(48 + 96 * i, 48 + 96 * j, 0.8, 0.5) for i in range(6) for j in range(2)]
        return [face_at(106 + 212 * k, 106, 0.95, points=points) for k in range(3)]

    ((face, *_),) = UprightAnalyser(Scripted(rule)).faces([np.zeros((212, 640, 3), np.uint8)])
    assert not face.certain


def test_an_uncertain_face_is_left_alone_and_no_reference() -> None:
    uncertain = Scripted(lambda image: [face_at(100, 100, 0.6)] if image.shape == (200, 200, 3) else [])
    engine = FaceEngine(UprightAnalyser(uncertain), AlignmentSwapper())
    frame = np.full((200, 200, 3), 90, np.uint8)
    (faces,) = engine.analyse([frame], never_cancelled)
    reference = FaceEngine(UprightAnalyser(opencv()), AlignmentSwapper()).identify([portrait()], "face", never_cancelled)
    result = engine.swap(frame[None], [faces], reference=reference, options=SwapOptions(), check=never_cancelled)
    np.testing.assert_array_equal(result[0], frame)
    with pytest.raises(NoFaceFound, match="cannot be told apart"):
        engine.identify([frame], "face", never_cancelled)


def beside(one: Image, other: Image, degrees: int) -> Image:
    """Return two pictures side by side, the second one turned by quarter turns."""

    def square(image: Image) -> Image:
        side = max(image.shape[:2])
        top, left = ((side - length) // 2 for length in image.shape[:2])
        padded = np.full((side, side, 3), 127, np.uint8)
        padded[top : top + image.shape[0], left : left + image.shape[1]] = image
        return np.asarray(cv2.resize(padded, (300, 300), interpolation=cv2.INTER_AREA))

    return np.hstack([square(one), np.rot90(square(other), degrees // 90)])


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_person_who_lies_beside_an_upright_one_is_found(engine: FaceEngine, degrees: int) -> None:
    picture = beside(portrait(), stranger(), degrees)
    (faces,) = engine.analyse([picture], never_cancelled)
    assert len(faces) == 2
    assert all(face.certain for face in faces)
    wanted = engine.identify([stranger()], "face", never_cancelled).face.embedding
    (lying,) = [face for face in faces if face.box[0] > 300]
    assert lying.embedding @ wanted > 0.6
    alone = beside(portrait(), np.full((300, 300, 3), 127, np.uint8), 0)
    film = np.stack([alone, alone, picture, picture])
    assert [len(found) for found in engine.analyse(film, never_cancelled)][:2] == [1, 1]
    if degrees:
        film = np.stack([picture] * 4)
        assert [len(found) for found in engine.analyse(film, never_cancelled)] == [2] * 4


def test_a_film_of_a_lying_head_is_compared_once_a_chunk() -> None:
    """The turn that the first frame shows is used for the others."""
    frames = np.stack([np.ascontiguousarray(np.rot90(stranger()))] * 4)
    analyser = opencv()
    looks: list[tuple[int, ...]] = []
    detect = analyser.detect
    analyser.detect = lambda image: looks.append(image.shape) or detect(image)  # type: ignore[method-assign, func-returns-value]
    faces = UprightAnalyser(analyser).faces(frames)
    assert [len(found) for found in faces] == [1] * 4
    assert all(found[0].certain for found in faces)
    small = [shape for shape in looks if shape[1] == 6 * 96]
    assert len(small) == 1, "12 cuts of one frame, in one picture"
