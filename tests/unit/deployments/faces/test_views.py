"""Cuts of faces, and what a detector says about them."""

import math

import numpy as np
import pytest

from deployments.faces.compositing.alignment import ARCFACE, align
from deployments.faces.detection import Detection, turn_of
from deployments.faces.upright import _FINE, _ROUGH, _Look
from deployments.faces.views import in_middles


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
    seen = in_middles(found, 100, 3, 5)
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
    ],
    ids=["beside the middle", "too large", "too small", "in an empty place", "left of the cuts", "below the cuts"],
)
def test_other_faces_are_those_of_no_cut(face: Detection) -> None:
    assert in_middles([face], 100, 3, 5) == [None] * 5


@pytest.mark.parametrize("look", [_ROUGH, _FINE], ids=["rough", "fine"])
def test_a_look_has_each_lean_and_each_size_plain_and_mirrored_once(look: _Look) -> None:
    cuts = look.around(40.0)
    assert {(cut.turn - 40, round(cut.side * cut.fill), cut.mirrored) for cut in cuts} == {
        (lean, size, mirrored) for lean in look.leans for size in look.sizes for mirrored in (False, True)
    }
    assert len(cuts) == 2 * len(look.leans) * len(look.sizes)
    assert all(0.25 < cut.fill < 0.9 for cut in cuts), "or the detector's face is not taken for that of the cut"
