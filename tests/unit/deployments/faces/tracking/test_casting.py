"""Several people, each replaced by another reference: nobody is ever mixed up."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from deployments.wire import Choice, Embedding, Face
from tests.unit.deployments.faces.fake_faces import face, follow, person

PEOPLE = tuple(person(who) for who in range(3))


def noisy(one: Face, random: np.random.Generator, noise: float) -> Face:
    """Return a face whose embedding and landmarks are those of a blurred detection."""
    embedding = one.embedding + random.normal(0, noise, 8).astype(np.float32)
    moved = one.landmarks + random.normal(0, 0.5, (5, 2)).astype(np.float32)
    return replace(one, embedding=np.asarray(embedding / np.linalg.norm(embedding), np.float32), landmarks=moved)


def place(who: int, i: int) -> float | None:
    """Return where a person is in a frame; the three cross, leave and come back."""
    if (i + 170 * who) % 500 < 60:
        return None
    return 500 + 350 * float(np.sin(i / (19.0 + 6 * who) + 2 * who))


def relative(who: int, alike: float) -> Embedding:
    """Return an embedding whose cosine to that of each other person is ``alike``."""
    return np.asarray((1 - alike) ** 0.5 * person(who) + alike**0.5 * person(6), np.float32)


def film(count: int, noise: float = 0.15, alike: float = 0.0) -> Iterator[list[Face]]:
    """Yield the faces of each frame, in any order, some of them missed by the detector."""
    random = np.random.default_rng(0)
    for i in range(count):
        at = {who: x for who in range(3) if (x := place(who, i)) is not None}
        faces = {who: replace(face(x, 200 + 8 * who), embedding=relative(who, alike)) for who, x in at.items()}
        seen = [noisy(one, random, noise) for one in faces.values() if random.random() > 0.03]
        random.shuffle(seen)
        yield seen


def check(decided: list[tuple[Face, ...]], order: npt.ArrayLike = (0, 1, 2)) -> int:
    """Assert that every chosen face is where the person of its reference is; return how many."""
    count = 0
    for i, faces in enumerate(decided):
        assert len({one.source for one in faces}) == len(faces), f"frame {i}: one reference for two faces"
        for one in faces:
            who = int(np.asarray(order)[one.source])
            x = place(who, i)
            assert x is not None, f"frame {i}: {who} is not there"
            assert abs(float(one.landmarks[:, 0].mean()) - x) < 12, f"frame {i}: {who} is elsewhere"
            assert float(one.landmarks[:, 1].mean()) == pytest.approx(200 + 8 * who, abs=3), f"frame {i}: mixed up"
            count += 1
    return count


@pytest.mark.slow
@pytest.mark.parametrize("alike", [0.0, 0.35])
def test_three_people_who_cross_leave_and_come_back_are_never_mixed_up(alike: float) -> None:
    """A cosine of 0.35 is that of siblings: photographs of two people have 0.36 at most (SFace)."""
    frames = 1000
    people = tuple(relative(who, alike) for who in range(3))
    assert people[0] @ people[1] == pytest.approx(alike)
    decided = follow(list(film(frames, alike=alike)), Choice("map", people=people))
    there = sum(place(who, i) is not None for i in range(frames) for who in range(3))
    assert check(decided) > 0.95 * there


@pytest.mark.slow
def test_people_counted_from_the_left_keep_their_reference_for_good() -> None:
    first = sorted((x, who) for who in range(3) if (x := place(who, 100)) is not None)
    film_from_there = list(film(700))[100:]
    decided = follow(film_from_there, Choice("map", people=(None, None, None)))
    assert len(first) == 3
    shifted: list[tuple[Face, ...]] = [()] * 100 + decided
    there = sum(place(who, i) is not None for i in range(100, 700) for who in range(3))
    assert check(shifted, [who for _, who in first]) > 0.95 * there


def test_nobody_else_is_replaced_and_one_person_gets_one_reference() -> None:
    crowd = [face(100, who=0), face(200, who=1), face(300, who=5), face(400, who=0, like=0.6)]
    (chosen,) = follow([crowd], Choice("map", people=(person(1), person(0), person(3))))
    assert {one.source: round(float(one.landmarks[:, 0].mean())) for one in chosen} == {0: 200, 1: 100}


def test_more_people_than_references_are_counted_from_the_left() -> None:
    crowd = [face(300, who=2), face(100, who=0), face(200, who=1)]
    (chosen,) = follow([crowd], Choice("map", people=(None, None)))
    assert {one.source: round(float(one.landmarks[:, 0].mean())) for one in chosen} == {0: 100, 1: 200}


def test_a_reference_that_is_left_goes_to_who_comes_next() -> None:
    frames = [[face(100, who=0)] if i < 20 else [face(100, who=0), face(40, who=1)] for i in range(40)]
    decided = follow(frames, Choice("map", people=(None, None)), cuts=[20], smooth_frames=0)
    assert [len(faces) for faces in decided] == [1] * 20 + [2] * 20
    for faces in decided[20:]:
        assert {one.source: round(float(one.landmarks[:, 0].mean())) for one in faces} == {0: 100, 1: 40}


def test_a_cut_does_not_mix_up_people_who_change_places() -> None:
    frames = [[face(100, who=0), face(300, who=1)] if i < 10 else [face(100, who=1), face(300, who=0)] for i in range(20)]
    for people in ((person(0), person(1)), (None, None)):
        decided = follow(frames, Choice("map", people=people), cuts=[10], smooth_frames=0)
        for i, faces in enumerate(decided):
            at = {one.source: round(float(one.landmarks[:, 0].mean())) for one in faces}
            assert at == ({0: 100, 1: 300} if i < 10 else {0: 300, 1: 100}), (people, i)
