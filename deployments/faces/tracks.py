"""Follows faces through a video: which detections are the same person, where a face is in the frames in which the detector missed it.

A frame is decided some frames late, when it is known whether a lost face comes back: only between two sightings is a gap filled, so
that nothing is ever put where a head has turned away. Nothing reaches over a scene cut.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import numpy.typing as npt

from deployments.faces.smoothing import smooth
from deployments.settings import Tracking
from deployments.wire import Embedding, Face

_LEAST_OVERLAP = 0.2
"""Intersection over union with where the face was expected, from which on a detection is near it."""
_OVERLAP_IN_PLACE = 0.5
"""The same, from which on a detection may be the same face though it is hardly alike."""


@dataclass(frozen=True, slots=True)
class Tracked:
    """A face of a frame. ``track`` is the same number in all frames that show the person; ``identity`` the mean of their embeddings."""

    track: int
    face: Face
    identity: Embedding
    here: bool = True
    """False for a face that comes into this scene in one of the next frames only; then ``face`` is where it will be."""


Choose = Callable[[Sequence[Tracked]], Sequence[Tracked]]


@dataclass(slots=True)
class _Track:
    number: int
    sightings: dict[int, Face] = field(default_factory=dict)
    """Frame -> the face that was found there; oldest first."""
    sum: npt.NDArray[np.float64] | float = 0.0
    until: int | None = None
    """The first frame that it cannot be in; None: not known yet."""
    sure: int = 0
    """The last frame in which its face was this person's by its likeness, not by its place alone."""
    known: Embedding = field(init=False)
    """The embedding found there: of later ones it is not known whose they are."""

    @property
    def last(self) -> int:
        return next(reversed(self.sightings))

    @property
    def identity(self) -> Embedding:
        total = np.asarray(self.sum)
        return np.asarray(total / max(float(np.linalg.norm(total)), 1e-9), np.float32)

    def alike(self, face: Face) -> float:
        """The cosine to the person, or to the last sighting that was surely theirs."""
        return float(max(self.identity @ face.embedding, self.known @ face.embedding))

    def see(self, frame: int, face: Face, *, sure: bool = True) -> None:
        self.sightings[frame] = face
        if sure:
            self.sure, self.known = frame, face.embedding
            self.sum = self.sum + face.embedding.astype(np.float64)

    def expected_box(self, frame: int) -> npt.NDArray[np.float32]:
        """Where the box is in ``frame`` if the face moves on as it last did."""
        last = self.last
        box = self.sightings[last].box
        earlier = [f for f in self.sightings if f < last]
        if not earlier:
            return box
        step = (box - self.sightings[earlier[-1]].box) / (last - earlier[-1])
        return np.asarray(box + step * (frame - last), np.float32)


class Tracker:
    """Takes the faces that were found, frame by frame; gives those that ``choose`` picks, smoothed, some frames later."""

    def __init__(self, settings: Tracking, choose: Choose) -> None:
        self._settings = settings
        self._choose = choose
        self._gap = settings.max_gap + settings.detect_every - 1
        self._tracks: list[_Track] = []
        self._numbers = count()
        self._times: dict[int, float] = {}
        self._looked: list[int] = []
        self._cuts: list[int] = []
        self._added = 0
        self._decided = 0

    @property
    def delay(self) -> int:
        """How many frames behind it must be there before a frame is decided."""
        return max(self._gap, self._settings.smooth_frames)

    def add(self, faces: Sequence[Face] | None, time: float, *, cut: bool = False) -> list[tuple[Face, ...]]:
        """Takes the next frame's faces (None: the detector did not look at it); gives the frames that are decided by it, in order.

        ``time`` in seconds; ``cut``: a new scene begins with this frame.
        """
        frame = self._added
        self._added += 1
        self._times[frame] = time
        if cut:
            self._cuts.append(frame)
            for track in self._tracks:
                track.until = frame if track.until is None else track.until
        if faces is not None:
            self._looked.append(frame)
            self._match(frame, faces)
        due = frame - self.delay
        return [self._decide() for _ in range(self._decided, due + 1)]

    def end(self) -> list[tuple[Face, ...]]:
        """Gives the frames that are left: no more will come."""
        return [self._decide() for _ in range(self._decided, self._added)]

    def _match(self, frame: int, faces: Sequence[Face]) -> None:
        alive = [t for t in self._tracks if t.until is None and frame - t.last - 1 <= self._gap]
        scored = [(score, t, i) for t in alive for i, face in enumerate(faces) if (score := self._likeness(t, frame, face))]
        scored.sort(key=lambda entry: -entry[0])
        taken: set[int] = set()
        for _, track, i in scored:
            if i not in taken and track.last != frame:
                track.see(frame, faces[i], sure=track.alike(faces[i]) >= self._settings.match_threshold)
                taken.add(i)
        for i, face in enumerate(faces):
            if i not in taken:
                track = _Track(next(self._numbers))
                track.see(frame, face)
                self._tracks.append(track)

    def _likeness(self, track: _Track, frame: int, face: Face) -> float:
        """How well a detection goes on with a track; 0: not at all."""
        last = track.sightings[track.last]
        alike = track.alike(face)
        overlap = _overlap(track.expected_box(frame), face.box)
        threshold = self._settings.match_threshold
        # A turned or blurred face is hardly alike: from one look to the next its place may speak for it, over a gap it may not, and
        # not for longer than a gap: somebody else may have come into that place.
        steady = self._looked[-2:-1] == [track.last] and frame - track.sure <= self._gap
        in_place = overlap >= _OVERLAP_IN_PLACE and steady and alike >= threshold / 2
        near = _distance(last.box, face.box) <= frame - track.last
        return alike + overlap / 2 if in_place or (alike >= threshold and (near or overlap >= _LEAST_OVERLAP)) else 0.0

    def _decide(self) -> tuple[Face, ...]:
        frame = self._decided
        self._decided += 1
        shown = [Tracked(t.number, face, t.identity) for t in self._tracks if (face := self._at(t, frame)) is not None]
        by_number = {t.number: t for t in self._tracks}
        known = [*shown, *self._coming(frame)]
        chosen = tuple(self._smoothed(by_number[one.track], frame, one.face) for one in self._choose(known) if one.here)
        self._forget(frame)
        return chosen

    def _coming(self, frame: int) -> list[Tracked]:
        """Faces that are first seen in a later frame of the same scene."""
        end = min((cut for cut in self._cuts if cut > frame), default=self._added)
        firsts = ((t, next(iter(t.sightings))) for t in self._tracks)
        return [Tracked(t.number, t.sightings[first], t.identity, here=False) for t, first in firsts if frame < first < end]

    def _at(self, track: _Track, frame: int) -> Face | None:
        """The face in a frame: found there, or between two sightings that are near enough, or where nobody looked."""
        if frame in track.sightings:
            return track.sightings[frame]
        before = max((f for f in track.sightings if f < frame), default=None)
        after = min((f for f in track.sightings if f > frame), default=None)
        if before is None or (track.until is not None and frame >= track.until):
            return None
        if after is None:
            missed = any(before < f and (track.until is None or f < track.until) for f in self._looked)
            return None if missed else track.sightings[before]
        if after - before - 1 > self._gap:
            return None
        return _between(track.sightings[before], track.sightings[after], (frame - before) / (after - before))

    def _smoothed(self, track: _Track, frame: int, face: Face) -> Face:
        points, times = [face.landmarks], [self._times[frame]]
        at = 0
        for distance in range(1, self._settings.smooth_frames + 1):
            earlier, later = frame - distance, frame + distance
            if earlier not in self._times or later not in self._times:
                break
            a, b = self._at(track, earlier), self._at(track, later)
            if a is None or b is None:
                break
            points = [a.landmarks, *points, b.landmarks]
            times = [self._times[earlier], *times, self._times[later]]
            at += 1
        return replace(face, landmarks=smooth(points, times, at, self._settings.smooth_tolerance))

    def _forget(self, frame: int) -> None:
        """Drops what no frame behind ``frame`` can need."""
        horizon = frame - self._settings.smooth_frames
        for f in [f for f in self._times if f < horizon]:
            del self._times[f]
        self._looked = [f for f in self._looked if f >= horizon - self._gap]
        self._cuts = [cut for cut in self._cuts if cut > frame]
        for track in self._tracks:
            for f in [f for f in track.sightings if f < horizon - self._gap - 1 and f != track.last]:
                del track.sightings[f]
        self._tracks = [t for t in self._tracks if t.last >= horizon - self._gap - 1]


def _between(one: Face, other: Face, share: float) -> Face:
    box, landmarks = (
        np.asarray(a + (b - a) * share, np.float32) for a, b in ((one.box, other.box), (one.landmarks, other.landmarks))
    )
    return replace(one, box=box, landmarks=landmarks)


def _overlap(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas = sum(float(np.prod(np.maximum(box[2:] - box[:2], 0))) for box in (one, other))
    return shared / max(areas - shared, 1e-9)


def _distance(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    """Distance of two boxes' centres, in sizes of the first."""
    centres = [(box[:2] + box[2:]) / 2 for box in (one, other)]
    size = max(float((one[2:] - one[:2]).max()), 1.0)
    return float(np.linalg.norm(centres[0] - centres[1])) / size
