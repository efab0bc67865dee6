"""Faces that are followed through a video: steadily, through gaps, and not over cuts."""

import pytest

from deployments.faces.tracking.choice import Chooser
from deployments.faces.tracking.tracks import Tracker
from deployments.settings import Tracking
from deployments.wire import Choice, Face
from tests.unit.deployments.faces.fake_faces import FPS, face, follow, person, x_of


def test_a_sudden_jump_is_not_smeared() -> None:
    frames = [[face(100 if i < 10 else 130)] for i in range(20)]
    assert [x_of(faces) for faces in follow(frames)] == pytest.approx([100.0] * 10 + [130.0] * 10, abs=0.5)


def test_a_face_hidden_for_five_frames_is_where_it_must_have_been() -> None:
    frames = [[] if 10 <= i < 15 else [face(50 + 4 * i)] for i in range(30)]
    assert [x_of(faces) for faces in follow(frames)] == pytest.approx([50 + 4.0 * i for i in range(30)], abs=0.01)


def test_nothing_is_pasted_where_a_head_has_turned_away() -> None:
    frames = [[face(50)] if i < 10 else [] for i in range(30)]
    assert [bool(faces) for faces in follow(frames)] == [i < 10 for i in range(30)]
    gone_long = [[] if 10 <= i < 19 else [face(50)] for i in range(30)]
    assert [bool(faces) for faces in follow(gone_long, max_gap=8)] == [not 10 <= i < 19 for i in range(30)]


def test_people_who_look_a_little_alike_are_not_one_person_over_a_gap() -> None:
    """To a face recogniser two of every ten pairs of people are as alike as this."""
    frames = [[] if 8 <= i < 12 else [face(50) if i < 8 else face(50, like=0.36)] for i in range(20)]
    assert [bool(faces) for faces in follow(frames)] == [not 8 <= i < 12 for i in range(20)]
    wanted = follow(frames, Choice(target=person(0)))
    assert [bool(faces) for faces in wanted] == [i < 8 for i in range(20)]


def test_somebody_similar_who_takes_the_place_is_not_followed_as_the_other_person() -> None:
    """A missed cut has no gap, the same place, and a likeness as of a blurred face."""
    frames = [[face(100, like=1.0 if i < 50 else 0.3)] for i in range(150)]
    swapped = [bool(faces) for faces in follow(frames, Choice(target=person(0)))]
    gap = Tracking().max_gap
    assert all(swapped[:50])
    assert not any(swapped[50 + gap + 1 :])


def test_a_face_that_is_blurred_for_a_moment_stays_the_same_person() -> None:
    frames = [[face(100 + i, like=0.3 if 20 <= i < 24 else 1.0)] for i in range(50)]
    assert all(follow(frames, Choice(target=person(0))))


def test_a_face_that_turns_away_slowly_stays_the_same_person() -> None:
    frames = [[face(50 + i, like=max(0.3, 1 - 0.07 * i))] for i in range(20)]
    assert all(follow(frames, Choice(target=person(0))))


def test_between_detections_nothing_is_pasted_if_the_next_one_finds_nobody() -> None:
    frames = [([face(50)] if i <= 8 else []) if i % 8 == 0 else None for i in range(33)]
    assert [bool(faces) for faces in follow(frames, detect_every=8)] == [i <= 8 for i in range(33)]


def test_a_cut_between_two_people_is_not_bridged() -> None:
    """The second person sits in the same place; both look away for a moment at the cut."""
    frames = [[] if i in (9, 10) else [face(50, who=0 if i < 10 else 1)] for i in range(20)]
    followed = follow(frames, cuts=[10])
    assert [bool(faces) for faces in followed] == [i not in (9, 10) for i in range(20)]
    # It is not bridged even if the cut is not detected, since they are two people.
    assert [bool(faces) for faces in follow(frames)] == [i not in (9, 10) for i in range(20)]
    near = [[face(50 if i < 10 else 56)] for i in range(20)]
    assert [x_of(faces) for faces in follow(near, cuts=[10])] == pytest.approx([50.0] * 10 + [56.0] * 10, abs=1e-3)


def test_between_detections_faces_are_interpolated_and_a_cut_is_respected() -> None:
    def at(i: int) -> Face:
        return face(50 + 2 * i, who=0) if i < 13 else face(200, who=1)

    frames = [[at(i)] if i % 4 == 0 or i == 13 else None for i in range(22)]
    followed = [x_of(faces) for faces in follow(frames, cuts=[13], detect_every=4, smooth_frames=0)]
    assert followed[:13] == pytest.approx([50 + 2.0 * i for i in range(13)])
    assert followed[13:] == pytest.approx([200.0] * 9)


@pytest.mark.slow
def test_memory_is_bounded_by_the_settings_not_by_the_video() -> None:
    tracker = Tracker(Tracking(), Chooser(Choice(), 0.4))
    sizes = []
    for i in range(400):
        tracker.add([face(50 + i % 7), face(300, who=1)] if i % 5 else [face(100 * i, who=2)], i / FPS, cut=i % 90 == 89)
        sizes.append(sum(len(track.sightings) for track in tracker._tracks) + len(tracker._times) + len(tracker._detected))
    assert max(sizes[200:]) <= max(sizes[:200])
