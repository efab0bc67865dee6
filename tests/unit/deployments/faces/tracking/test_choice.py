"""Which of several faces is replaced, and who takes over."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from deployments.wire import Choice
from tests.unit.deployments.faces.fake_faces import face, follow, person, x_of

PEOPLE = [face(300, size=30, who=0), face(100, size=20, who=1), face(500, size=24, who=2)]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (Choice(), [300]),
        (Choice("all"), [100, 300, 500]),
        (Choice("left"), [100]),
        (Choice("right"), [500]),
        (Choice("index", 1), [300]),
        (Choice("index", 3), []),
        (Choice(target=person(2)), [500]),
        (Choice("all", target=person(1)), [100]),
        (Choice(target=person(5)), []),
    ],
)
def test_the_choice_of_faces(choice: Choice, expected: list[int]) -> None:
    (chosen,) = follow([PEOPLE], choice)
    assert sorted(round(float(one.landmarks[:, 0].mean())) for one in chosen) == expected


def test_the_choice_stays_with_a_person_until_they_are_gone() -> None:
    """Two people of one size pass each other; the second is chosen once the first has left."""
    frames = [
        [face(100 + 10 * i, size=20 + i % 3, who=0), face(300 - 10 * i, 160, size=20 + (i + 1) % 3, who=1)] for i in range(20)
    ]
    for choice in (Choice(), Choice("left"), Choice("index", 0)):
        ways = [x_of(faces) for faces in follow(frames, choice, smooth_frames=0)]
        steps = np.sign(np.diff(np.asarray(ways, float)))
        assert abs(steps.sum()) == len(steps), (choice, ways)
    leaving = [frame if i < 10 else [frame[1]] for i, frame in enumerate(frames)]
    followed = follow(leaving, Choice("left"), smooth_frames=0)
    assert [round(x_of(faces) or 0) for faces in followed] == [100 + 10 * i if i < 10 else 300 - 10 * i for i in range(20)]


def test_a_much_larger_face_takes_over() -> None:
    frames = [[face(100, size=20), face(400, size=19 + i, who=1)] for i in range(20)]
    chosen = [x_of(faces) for faces in follow(frames, smooth_frames=0)]
    assert chosen[0] == pytest.approx(100)
    assert chosen[-1] == pytest.approx(400)
    assert sum(one != other for one, other in pairwise(chosen)) == 1


def test_the_target_is_chosen_even_if_somebody_similar_was_there_first() -> None:
    frames = [[face(100, like=0.45)] if i < 12 else [face(100, like=0.45), face(400, who=0)] for i in range(40)]
    chosen = [x_of(faces) for faces in follow(frames, Choice(target=person(0)), smooth_frames=0)]
    assert chosen == pytest.approx([100.0] * 12 + [400.0] * 28)


@pytest.mark.parametrize(("choice", "wanted"), [("left", 100), ("index", 100), ("right", 500)])
def test_a_face_that_the_first_frame_misses_is_counted(choice: Any, wanted: float) -> None:
    people = {100: face(100, who=0), 300: face(300, who=1), 500: face(500, who=2)}
    frames = [[one for x, one in people.items() if i or x != wanted] for i in range(40)]
    chosen = [x_of(faces) for faces in follow(frames, Choice(choice))]
    assert chosen == pytest.approx([None] + [wanted] * 39)


def test_a_face_of_the_next_scene_is_not_counted() -> None:
    frames = [[face(300, who=1)] if i < 4 else [face(100, who=0), face(500, who=1)] for i in range(20)]
    chosen = [x_of(faces) for faces in follow(frames, Choice("left"), cuts=[4], smooth_frames=0)]
    assert chosen == pytest.approx([300.0] * 4 + [100.0] * 16)


def test_people_who_cross_are_not_confused() -> None:
    """Where two people meet, each is nearer to the place that is expected of the other."""
    frames = [[face(200, who=0), face(120 + 8 * i, 112, who=1)] for i in range(20)]
    followed = follow(frames, Choice(target=person(0)), smooth_frames=0)
    assert [x_of(faces) for faces in followed] == pytest.approx([200.0] * 20, abs=0.5)
