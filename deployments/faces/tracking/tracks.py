"""Follows faces through a video: which detections are one person, and where missed faces are.

A frame is decided a few frames late, when it is known whether a lost face comes back. A gap is
filled only between two sightings, so nothing is pasted where a head has turned away. Nothing
crosses a scene cut.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np
import numpy.typing as npt

from deployments.faces.tracking.smoothing import smooth
from deployments.settings import Tracking
from deployments.wire import Embedding, Face

Box = npt.NDArray[np.float32]

_MIN_OVERLAP = 0.2
"""Intersection over union with the expected box at which a detection counts as near it."""
_OVERLAP_IN_PLACE = 0.5
"""Intersection over union at which a detection may be the same face although it is hardly alike."""


@dataclass(frozen=True, slots=True)
class TrackedFace:
    """A face in one frame, and the person that it belongs to."""

    track: int
    """The same number in all frames that show the person."""
    face: Face
    identity: Embedding
    """The mean of the person's embeddings."""
    visible: bool = True
    """False for a face that first appears in one of the next frames of the scene; ``face`` is from
    there."""
    source: int = 0
    """The number of the reference that replaces the face, if it is chosen."""


Choose = Callable[[Sequence[TrackedFace]], Sequence[TrackedFace]]


@dataclass(slots=True)
class _Track:
    number: int
    sightings: dict[int, Face] = field(default_factory=dict)
    """Frame -> the face that was detected there, the oldest first."""
    sum: npt.NDArray[np.float64] | float = 0.0
    end: int | None = None
    """The first frame that cannot show the face any more; None if that is not known yet."""
    last_certain: int = 0
    """The last frame in which the face was recognised by its likeness, not only by its place."""
    certain_embedding: Embedding = field(init=False)
    """The embedding in that frame; later ones may be somebody else's."""

    @property
    def last(self) -> int:
        return next(reversed(self.sightings))

    @property
    def identity(self) -> Embedding:
        total = np.asarray(self.sum)
        return np.asarray(total / max(float(np.linalg.norm(total)), 1e-9), np.float32)

    def likeness(self, face: Face) -> float:
        """Return the higher of the cosines to the mean identity and to the last certain one."""
        return float(max(self.identity @ face.embedding, self.certain_embedding @ face.embedding))

    def add(self, frame: int, face: Face, *, certain: bool = True) -> None:
        self.sightings[frame] = face
        if certain:
            self.last_certain, self.certain_embedding = frame, face.embedding
            self.sum = self.sum + face.embedding.astype(np.float64)

    def expected_box(self, frame: int) -> Box:
        """Return where the box is in ``frame`` if the face keeps moving as it last did."""
        last = self.last
        box = self.sightings[last].box
        earlier = [f for f in self.sightings if f < last]
        if not earlier:
            return box
        step = (box - self.sightings[earlier[-1]].box) / (last - earlier[-1])
        return np.asarray(box + step * (frame - last), np.float32)


class Tracker:
    """Takes detections frame by frame and returns the chosen, smoothed faces some frames later."""

    def __init__(self, settings: Tracking, choose: Choose) -> None:
        self._settings = settings
        self._choose = choose
        self._gap = settings.max_gap + settings.detect_every - 1
        self._tracks: list[_Track] = []
        self._numbers = count()
        self._times: dict[int, float] = {}
        self._detected: list[int] = []
        self._cuts: list[int] = []
        self._added = 0
        self._decided = 0

    @property
    def delay(self) -> int:
        """How many later frames must be known before a frame is decided."""
        return max(self._gap, self._settings.smooth_frames)

    def add(self, faces: Sequence[Face] | None, time: float, *, cut: bool = False) -> list[tuple[Face, ...]]:
        """Add the next frame; return the chosen faces of each frame that this decides.

        The frames are in order. ``faces`` is None if the detector skipped the frame. ``time`` is in
        seconds. ``cut`` says that the frame starts a new scene.
        """
        frame = self._added
        self._added += 1
        self._times[frame] = time
        if cut:
            self._cuts.append(frame)
            for track in self._tracks:
                track.end = frame if track.end is None else track.end
        if faces is not None:
            self._detected.append(frame)
            self._match(frame, faces)
        newest = frame - self.delay
        return [self._decide() for _ in range(self._decided, newest + 1)]

    def end(self) -> list[tuple[Face, ...]]:
        """Return the chosen faces of the remaining frames, after the last frame has been added."""
        return [self._decide() for _ in range(self._decided, self._added)]

    def _match(self, frame: int, faces: Sequence[Face]) -> None:
        alive = [t for t in self._tracks if t.end is None and frame - t.last - 1 <= self._gap]
        scored = [(score, t, i) for t in alive for i, face in enumerate(faces) if (score := self._score(t, frame, face))]
        scored.sort(key=lambda entry: -entry[0])
        taken: set[int] = set()
        for _, track, i in scored:
            if i not in taken and track.last != frame:
                track.add(frame, faces[i], certain=track.likeness(faces[i]) >= self._settings.match_threshold)
                taken.add(i)
        for i, face in enumerate(faces):
            if i not in taken:
                track = _Track(next(self._numbers))
                track.add(frame, face)
                self._tracks.append(track)

    def _score(self, track: _Track, frame: int, face: Face) -> float:
        """Return how well a detection continues a track; 0 if it does not."""
        last = track.sightings[track.last]
        likeness = track.likeness(face)
        overlap = _overlap(track.expected_box(frame), face.box)
        threshold = self._settings.match_threshold
        # A turned or blurred face is hardly alike. Its place may identify it from one detection to
        # the next, but not over a gap, and for no longer than a gap: somebody else may have taken
        # the place.
        steady = self._detected[-2:-1] == [track.last] and frame - track.last_certain <= self._gap
        in_place = overlap >= _OVERLAP_IN_PLACE and steady and likeness >= threshold / 2
        near = _distance(last.box, face.box) <= frame - track.last
        continues = in_place or (likeness >= threshold and (near or overlap >= _MIN_OVERLAP))
        return likeness + overlap / 2 if continues else 0.0

    def _decide(self) -> tuple[Face, ...]:
        frame = self._decided
        self._decided += 1
        visible = [TrackedFace(t.number, face, t.identity) for t in self._tracks if (face := self._at(t, frame)) is not None]
        by_number = {t.number: t for t in self._tracks}
        known = [*visible, *self._upcoming(frame)]
        chosen = tuple(
            replace(self._smoothed(by_number[one.track], frame, one.face), source=one.source)
            for one in self._choose(known)
            if one.visible
        )
        self._forget(frame)
        return chosen

    def _upcoming(self, frame: int) -> list[TrackedFace]:
        """Return the faces that first appear in a later frame of the same scene."""
        end = min((cut for cut in self._cuts if cut > frame), default=self._added)
        firsts = ((t, next(iter(t.sightings))) for t in self._tracks)
        return [
            TrackedFace(t.number, t.sightings[first], t.identity, visible=False) for t, first in firsts if frame < first < end
        ]

    def _at(self, track: _Track, frame: int) -> Face | None:
        """Return the face in a frame, or None if the frame does not show it.

        It was detected there, lies between two sightings that are close enough, or the detector has
        not looked since the last sighting.
        """
        if frame in track.sightings:
            return track.sightings[frame]
        before = max((f for f in track.sightings if f < frame), default=None)
        after = min((f for f in track.sightings if f > frame), default=None)
        if before is None or (track.end is not None and frame >= track.end):
            return None
        if after is None:
            missed = any(before < f and (track.end is None or f < track.end) for f in self._detected)
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
        return replace(face, landmarks=smooth(points, times, at=at, tolerance=self._settings.smooth_tolerance))

    def _forget(self, frame: int) -> None:
        """Drop everything that no frame after ``frame`` can need."""
        horizon = frame - self._settings.smooth_frames
        for f in [f for f in self._times if f < horizon]:
            del self._times[f]
        self._detected = [f for f in self._detected if f >= horizon - self._gap]
        self._cuts = [cut for cut in self._cuts if cut > frame]
        for track in self._tracks:
            for f in [f for f in track.sightings if f < horizon - self._gap - 1 and f != track.last]:
                del track.sightings[f]
        self._tracks = [t for t in self._tracks if t.last >= horizon - self._gap - 1]


def _between(first: Face, second: Face, share: float) -> Face:
    """Interpolate box and landmarks: ``share`` 0 is ``first``, 1 is ``second``."""
    box, landmarks = (
        np.asarray(a + (b - a) * share, np.float32) for a, b in ((first.box, second.box), (first.landmarks, second.landmarks))
    )
    return replace(first, box=box, landmarks=landmarks)


def _overlap(a: Box, b: Box) -> float:
    """Return the intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = float(np.prod(np.maximum(sides, 0)))
    areas = sum(float(np.prod(np.maximum(box[2:] - box[:2], 0))) for box in (a, b))
    return shared / max(areas - shared, 1e-9)


def _distance(a: Box, b: Box) -> float:
    """Return the distance between the centres of two boxes, in sizes of ``a``."""
    centres = [(box[:2] + box[2:]) / 2 for box in (a, b)]
    size = max(float((a[2:] - a[:2]).max()), 1.0)
    return float(np.linalg.norm(centres[0] - centres[1])) / size
