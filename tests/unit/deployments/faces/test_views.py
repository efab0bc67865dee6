"""Cuts of faces, and what a detector says about them."""

import math
from dataclasses import replace

import numpy as np
import pytest

from deployments.faces.compositing.alignment import ARCFACE, align
from deployments.faces.detection import Detection, turn_of, without_doubles
from deployments.faces.upright import _FINE, _ROUGH, UprightAnalyser, _Look
from deployments.faces.views import in_middles
from deployments.wire import Face, Image


def test_the_turn_of_a_face_is_that_of_the_transform_that_aligns_it() -> None:
    random = np.random.default_rng(0)
    for _ in range(300):
        landmarks = (random.normal(size=(5, 2)) * 30 + random.uniform(-500, 500, 2)).astype(np.float32)
        matrix = align(landmarks, ARCFACE)
        expected = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))
        assert abs((turn_of(landmarks) - expected + 180) % 360 - 180) < 1e-3


def a_face(x: float, y: float, size: float, score: float = 0.9) -> Detection:
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)
    return Detection(box, np.full((5, 2), [x, y], np.float32), score=score)


def test_each_cut_has_the_best_face_of_its_middle_in_its_own_pixels() -> None:
    """Five cuts of 100 pixels lie in rows of three."""
    found = [a_face(50, 52, 60), a_face(55, 50, 40, score=0.7), a_face(250, 50, 50), a_face(150, 160, 50)]
    seen = in_middles(found, 100, columns=3, count=5)
    assert [one and (*one.landmarks[0].tolist(), *one.centre.tolist(), one.score) for one in seen] == [
        (50, 52, 50, 52, 0.9),
        None,
        (50, 50, 50, 50, 0.9),
        None,
        (50, 60, 50, 60, 0.9),
    ]


@pytest.mark.parametrize(
    "face",
    [
        a_face(95, 50, 50),
        a_face(50, 50, 95),
        a_face(50, 50, 20),
        a_face(250, 150, 50),
        a_face(-20, 50, 50),
        a_face(50, 350, 50),
        a_face(math.nan, 50, 50),
    ],
    ids=["beside the middle", "too large", "too small", "in an empty place", "left of the cuts", "below the cuts", "nowhere"],
)
def test_other_faces_are_those_of_no_cut(face: Detection) -> None:
    assert in_middles([face], 100, columns=3, count=5) == [None] * 5


class Marks:
    """An analyser that takes each square of one brightness for a face with that score."""

    name, detection_size, larger = "marks", 300, 1.0

    def __init__(self, *, enlarges: bool) -> None:
        self.enlarges = enlarges
        self.sheets: list[tuple[int, ...]] = []

    def detect(self, image: Image) -> list[Detection]:
        self.sheets.append(image.shape[:2])
        found = []
        for level in np.unique(image[image > 0]):
            rows, columns = np.nonzero(image[:, :, 0] == level)
            found.append(a_face(columns.mean() + 0.5, rows.mean() + 0.5, float(np.ptp(rows)) + 1, score=level / 255))
        return found

    def describe(self, images: object, found: object, check: object) -> list[list[Face]]:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("enlarges", "sheets"),
    [
        (False, [(288, 288), (192, 192), (288, 288), (288, 288)]),  # 13 cuts of 96 pixels, and 7 of 144
        (True, [(300, 300)] * 4),
    ],
)
def test_the_cuts_of_each_size_are_looked_at_together_and_told_apart(enlarges: bool, sheets: list[tuple[int, int]]) -> None:
    """Three rows of 96 pixels fit into 300 pixels, and two of 144; one cut has no face."""
    analyser, cuts, levels = Marks(enlarges=enlarges), [], [*range(20, 220, 10)]
    for k, level in enumerate(levels):
        side = 96 if k % 3 else 144
        cut = np.zeros((side, side, 3), np.uint8)
        if k != 7:
            cut[side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = level
        cuts.append(cut)
    found = UprightAnalyser(analyser)._in_cuts(cuts, lambda: None)
    scores = [None if one is None else round(255 * one.score) for one in found]
    assert scores == [level if k != 7 else None for k, level in enumerate(levels)]
    assert all(one is None or one.centre.tolist() == [len(cut) / 2] * 2 for one, cut in zip(found, cuts, strict=True))
    assert analyser.sheets == sheets


@pytest.mark.parametrize("look", [_ROUGH, _FINE], ids=["rough", "fine"])
def test_a_look_has_each_lean_and_each_size_plain_and_mirrored_once(look: _Look) -> None:
    cuts = look.around(40.0)
    assert {(cut.turn - 40, round(cut.side * cut.fill), cut.mirrored) for cut in cuts} == {
        (lean, size, mirrored) for lean in look.leans for size in look.sizes for mirrored in (False, True)
    }
    assert len(cuts) == 2 * len(look.leans) * len(look.sizes)
    assert all(0.25 < cut.fill < 0.9 for cut in cuts), "or the detector's face is not taken for that of the cut"


def a_whole_face(x: float, y: float, *, certain: bool = True) -> Detection:
    landmarks = np.asarray(ARCFACE - ARCFACE.mean(axis=0) + (x, y), np.float32)
    return replace(a_face(x, y, 90), landmarks=landmarks, certain=certain)


def test_a_face_that_was_found_twice_is_there_once() -> None:
    """The second box is larger and lies beside the face, on which its landmarks are."""
    face, neighbour = a_whole_face(100, 100), a_whole_face(190, 100)
    beside = replace(a_face(50, 120, 110, score=0.99), landmarks=face.landmarks + np.float32(3))
    unsure = a_whole_face(110, 130, certain=False)
    apart = a_whole_face(400, 100, certain=False)
    kept = without_doubles([beside, face, neighbour, unsure, apart])
    assert [one.centre.tolist() for one in kept] == [[100, 100], [190, 100], [400, 100]]
