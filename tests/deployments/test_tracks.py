"""Faces followed through a video: steady, through gaps, not over cuts; and which of several is meant."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import pytest

from demo.face_models import ensure_face_models
from deployments.faces.analysis import OpenCVAnalyser
from deployments.faces.choice import Chooser
from deployments.faces.cuts import CutFinder
from deployments.faces.smoothing import smooth
from deployments.faces.tracks import Tracker
from deployments.settings import FaceSettings, Tracking
from deployments.wire import Choice, Face
from serve.samples import group, pan, portrait, stranger

FPS = 25
SHAPE = np.array([[-1.0, -1], [1, -1], [0, 0], [-0.8, 1], [0.8, 1]])


@pytest.fixture(scope="module")
def analyser() -> OpenCVAnalyser:
    models = ensure_face_models()
    return OpenCVAnalyser(models.detector, models.recogniser, FaceSettings())


def person(number: int) -> Any:
    """An embedding like no other person's."""
    return np.eye(8, dtype=np.float32)[number]


def face(x: float, y: float = 100, size: float = 20, who: int = 0, like: float = 1.0) -> Face:
    """``like``: cosine of its embedding to that of person ``who``."""
    box = np.float32([x - 1.5 * size, y - 1.8 * size, x + 1.5 * size, y + 1.8 * size])
    return Face(box, np.float32(SHAPE * size + [x, y]), 0.9, like * person(who) + np.float32((1 - like**2) ** 0.5) * person(7))


def follow(
    frames: Sequence[Sequence[Face] | None], choice: Choice | None = None, cuts: Sequence[int] = (), **settings: Any
) -> list[tuple[Face, ...]]:
    tracking = Tracking(**settings)
    tracker = Tracker(tracking, Chooser(choice or Choice(), tracking.match_threshold))
    decided = []
    for i, faces in enumerate(frames):
        decided += tracker.add(faces, i / FPS, cut=i in cuts)
    decided += tracker.end()
    assert len(decided) == len(frames)
    return decided


def x_of(faces: tuple[Face, ...]) -> float | None:
    assert len(faces) <= 1
    return float(faces[0].landmarks[:, 0].mean()) if faces else None


MOTIONS = {"still": np.zeros(41), "pan": np.linspace(-60, 60, 41), "start and stop": np.clip(np.linspace(-200, 280, 41), 0, 80)}


@pytest.mark.parametrize("motion", MOTIONS)
def test_detections_in_sensor_noise_tremble_a_third_as_much_and_do_not_lag(analyser: OpenCVAnalyser, motion: str) -> None:
    picture = cv2.resize(stranger(), None, fx=1.2, fy=1.2)
    size = picture.shape[1::-1]
    offsets = MOTIONS[motion]
    clean = [cv2.warpAffine(picture, np.float32([[1, 0, x], [0, 1, 0]]), size, borderMode=cv2.BORDER_REFLECT) for x in offsets]
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
        # Of all shifts in time, the one by which the smoothed path is nearest to that of the detections.
        paths = [landmarks.mean(axis=1)[:, 0] for landmarks in (steady, seen)]
        shifts = np.linspace(-3, 3, 61)
        frames = np.arange(len(offsets), dtype=float)
        inner = slice(4, -4)
        apart = [np.abs(np.interp(frames - shift, frames, paths[1]) - paths[0])[inner].mean() for shift in shifts]
        assert abs(shifts[int(np.argmin(apart))]) <= 1


def test_a_point_alone_stays_and_even_motion_is_kept_exactly() -> None:
    points = [SHAPE * 20 + [3.0 * i, 2.0 * i] for i in range(9)]
    times = [i / FPS for i in range(9)]
    np.testing.assert_allclose(smooth(points, times, 4, 2.0), points[4], atol=1e-9)
    np.testing.assert_array_equal(smooth(points, times, 0, 2.0), points[0])
    np.testing.assert_array_equal(smooth(points[:1], times[:1], 0, 2.0), points[0])


def test_a_sudden_jump_is_not_smeared() -> None:
    frames = [[face(100 if i < 10 else 130)] for i in range(20)]
    assert [x_of(faces) for faces in follow(frames)] == pytest.approx([100.0] * 10 + [130.0] * 10, abs=0.5)


def test_a_face_hidden_for_five_frames_is_where_it_must_have_been() -> None:
    frames = [[] if 10 <= i < 15 else [face(50 + 4 * i)] for i in range(30)]
    assert [x_of(faces) for faces in follow(frames)] == pytest.approx([50 + 4.0 * i for i in range(30)], abs=0.01)


def test_nothing_is_put_where_a_head_has_turned_away() -> None:
    frames = [[face(50)] if i < 10 else [] for i in range(30)]
    assert [bool(faces) for faces in follow(frames)] == [i < 10 for i in range(30)]
    gone_long = [[] if 10 <= i < 19 else [face(50)] for i in range(30)]
    assert [bool(faces) for faces in follow(gone_long, max_gap=8)] == [not 10 <= i < 19 for i in range(30)]


def test_people_who_are_a_little_alike_are_not_one_person_over_a_gap() -> None:
    """Two of every ten pairs of people are as alike as this to a face recogniser; the place speaks for it, too."""
    frames = [[] if 8 <= i < 12 else [face(50) if i < 8 else face(50, like=0.36)] for i in range(20)]
    assert [bool(faces) for faces in follow(frames)] == [not 8 <= i < 12 for i in range(20)]
    wanted = follow(frames, Choice(target=person(0)))
    assert [bool(faces) for faces in wanted] == [i < 8 for i in range(20)]


def test_somebody_a_little_alike_who_takes_the_place_unseen_is_not_kept_for_the_other() -> None:
    """A dissolve, or a cut that was not found: no gap, the same place, and a likeness that a blurred face might have."""
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


def test_people_who_cross_are_not_exchanged_where_they_cover_each_other() -> None:
    """One sits; another passes close by, and where they meet, each is found nearer to where the other was expected."""
    frames = [[face(200, who=0), face(120 + 8 * i, 112, who=1)] for i in range(20)]
    followed = follow(frames, Choice(target=person(0)), smooth_frames=0)
    assert [x_of(faces) for faces in followed] == pytest.approx([200.0] * 20, abs=0.5)


def test_the_person_wanted_is_taken_when_they_come_in_after_one_who_looks_like_them() -> None:
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


def test_between_looks_nothing_is_put_where_the_next_look_finds_nobody() -> None:
    frames = [([face(50)] if i <= 8 else []) if i % 8 == 0 else None for i in range(33)]
    assert [bool(faces) for faces in follow(frames, detect_every=8)] == [i <= 8 for i in range(33)]


def test_a_cut_between_two_people_is_not_bridged() -> None:
    """The second person sits where the first one sat, and looks away for a moment on each side of the cut."""
    frames = [[] if i in (9, 10) else [face(50, who=0 if i < 10 else 1)] for i in range(20)]
    followed = follow(frames, cuts=[10])
    assert [bool(faces) for faces in followed] == [i not in (9, 10) for i in range(20)]
    # Not even without the cut being seen: they are two people.
    assert [bool(faces) for faces in follow(frames)] == [i not in (9, 10) for i in range(20)]
    near = [[face(50 if i < 10 else 56)] for i in range(20)]
    assert [x_of(faces) for faces in follow(near, cuts=[10])] == pytest.approx([50.0] * 10 + [56.0] * 10, abs=1e-3)


def test_between_looks_faces_are_interpolated_and_a_cut_is_looked_at() -> None:
    def at(i: int) -> Face:
        return face(50 + 2 * i, who=0) if i < 13 else face(200, who=1)

    frames = [[at(i)] if i % 4 == 0 or i == 13 else None for i in range(22)]
    followed = [x_of(faces) for faces in follow(frames, cuts=[13], detect_every=4, smooth_frames=0)]
    assert followed[:13] == pytest.approx([50 + 2.0 * i for i in range(13)])
    assert followed[13:] == pytest.approx([200.0] * 9)


def test_memory_is_bounded_by_the_settings_not_by_the_video() -> None:
    tracker = Tracker(Tracking(), Chooser(Choice(), 0.4))
    sizes = []
    for i in range(400):
        tracker.add([face(50 + i % 7), face(300, who=1)] if i % 5 else [face(100 * i, who=2)], i / FPS, cut=i % 90 == 89)
        sizes.append(sum(len(track.sightings) for track in tracker._tracks) + len(tracker._times) + len(tracker._looked))
    assert max(sizes[200:]) <= max(sizes[:200])


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
def test_the_faces_that_are_meant(choice: Choice, expected: list[int]) -> None:
    (chosen,) = follow([PEOPLE], choice)
    assert sorted(round(float(one.landmarks[:, 0].mean())) for one in chosen) == expected


def test_the_same_person_is_meant_until_they_are_gone() -> None:
    """Two people of one size walk past each other: neither is lost to the other, and the one left over takes over only then."""
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


@pytest.mark.parametrize("number", range(6))
def test_each_of_a_group_is_found_by_a_poor_picture_of_them(analyser: OpenCVAnalyser, number: int) -> None:
    """The picture is flipped, made smaller and saved as JPEG of quality 40."""
    people = analyser.faces([group()])[0]
    left, top, right, bottom = people[number].box
    margin = 0.5 * (right - left)
    cut = group()[max(0, int(top - margin)) : int(bottom + margin), max(0, int(left - margin)) : int(right + margin), ::-1]
    small = cv2.resize(cut[:, ::-1], None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 40])
    poor = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])
    target = analyser.faces([poor])[0][0].embedding
    ((chosen,),) = follow([people], Choice(target=target))
    np.testing.assert_array_equal(chosen.box, people[number].box)


def test_somebody_who_is_not_in_the_picture_is_not_found(analyser: OpenCVAnalyser) -> None:
    people = analyser.faces([group()])[0]
    for absent in (portrait(), stranger()[::1]):
        known = analyser.faces([absent])[0][0].embedding
        if max(float(known @ one.embedding) for one in people) < 0.9:  # the stranger is one of the group
            assert follow([people], Choice(target=known)) == [()]


def test_cuts_are_found_and_pans_flashes_of_noise_and_zooms_are_none() -> None:
    def cuts(frames: Sequence[Any]) -> list[int]:
        finder = CutFinder()
        return [i for i, frame in enumerate(frames) if finder.starts_scene(frame)]

    one, other = pan(stranger(), 20, 192, 224), pan(portrait(), 20, 192, 224)
    assert cuts([*one, *other, *one]) == [20, 40]
    rng = np.random.default_rng(1)
    noisy = [np.clip(frame + rng.normal(0, 25, frame.shape), 0, 255).astype(np.uint8) for frame in one]
    assert cuts(noisy) == []
    fast = [np.roll(one[0], 24 * i, axis=1) for i in range(8)]
    assert cuts(fast) == []
    assert cuts([np.full((3, 2, 3), 10 * i, np.uint8) for i in range(5)]) == []
