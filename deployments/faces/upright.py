"""Finds faces at any angle: heads that lean, lie on their side or are upside down.

Detectors are trained on upright faces. On a face that leans, they put the landmarks nearer to where
those of an upright face would be: YuNet says a quarter to a half of the angle, and nothing of it
from about 45 degrees on. So a face that may lean is cut out at several turns and mirrored, cuts of
one size are laid side by side in one picture, and the detector looks at that picture once. What it
says of the cuts falls in a line with their turns, which is zero at the turn that makes the face
upright. If even the rough turn is in doubt, the scores tell it: they are highest for upright faces.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from deployments.faces.detection import (
    Detection,
    apart,
    may_be_same,
    misfit,
    overlap,
    turn_of,
    turned_back,
    turned_by,
    without_doubles,
)
from deployments.faces.views import MIRRORED, View, cut_out, fitted_turn, in_middles, landmarks_at, placed
from deployments.wire import Face, Frames, Image

Check = Callable[[], None]


class Analyser(Protocol):
    """Detects faces and describes them, each on its own."""

    name: str
    detection_size: int
    enlarges: bool
    """Whether it enlarges pictures that are smaller than ``detection_size``."""
    larger: float
    """How much larger the landmarks of a face are in whole pictures than in cuts that it fills."""

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in a uint8 RGB image."""

    def describe(
        self, images: Frames | Sequence[Image], found: Sequence[Sequence[Detection]], check: Check
    ) -> list[list[Face]]:
        """Return the faces with their embeddings, the largest of each image first."""


_SURE = 0.89
"""The score at which a face is surely upright. Faces that are not get 0.88 at most (YuNet)."""
_SLIGHT = 10.0
"""Degrees by which a sure face may seem to lean, if cuts at two turns do not contradict it."""
_CHECK_TURNS = (-25.0, 25.0)
"""The turns of those cuts."""
_CONTRADICTS = 8.0
"""Degrees by which the lean that the cuts tell may differ from what the landmarks say."""
_TURNS = tuple(range(0, 360, 30))
_FAR = 75.0
"""Degrees between turns that cannot both be nearly right."""
_CLEARLY_BETTER = 0.03
"""How much better than the image itself another turn must score, and better than turns that are
far from it."""
_SMALL = 96
"""The side of the cuts that are compared."""


_ROOM = 0.65
"""The share of its cut that a face fills in a look, if the cut need not be smaller."""
_LARGEST = 144
"""The side of the largest cuts of a look."""


class _Cut(NamedTuple):
    """How a face is cut out: it fills that share of a square of ``side`` pixels."""

    turn: float
    side: int
    fill: float
    mirrored: bool


@dataclass(frozen=True)
class _Look:
    """Cuts in which landmarks are found: for each of ``leans`` one of each of ``sizes``.

    The sizes are those of the face, in pixels: the detector errs in each of its scales in another
    way. A face fills ``_ROOM`` of its cut, or more where the cut would be larger than ``_LARGEST``.
    """

    leans: tuple[float, ...]
    sizes: tuple[int, ...]

    def around(self, turn: float) -> list[_Cut]:
        """Return the cuts of a face around its ``turn``, plain and mirrored."""
        sides = [(size, min(_LARGEST, round(size / _ROOM))) for size in self.sizes]
        return [
            _Cut(turn + lean, side, fill=size / side, mirrored=mirrored)
            for lean in self.leans
            for size, side in sides
            for mirrored in (False, True)
        ]


_ROUGH = _Look(leans=(-27.0, -9.0, 9.0, 27.0), sizes=(64,))
_FINE = _Look(leans=(-18.0, -6.0, 6.0, 18.0), sizes=(48, 64, 80, 96))
"""The cuts for faces of pictures, which no other frame corrects."""
_FEWEST_VIEWS, _FEWEST_TURNS = 5, 3
"""In how many of these cuts the face must be found, and at how many turns."""
_LOOKS, _SETTLED = 4, 10.0
"""How often a look is taken, until the face leans by no more degrees in its cuts."""
_LEANS = 20.0
"""Degrees by which a face may lean in its upright cuts."""
_CLEAR = 0.86
"""The score that a face must reach upright if it leans far. Hair in a picture got 0.82 (YuNet)."""
_CAREFUL = 2
"""The number of faces of a single image, the largest first, that are never taken for upright."""
_MISFIT = 0.3
"""The mean distance of landmarks from those of a face, in distances between the eyes."""
_SOFTENED = 1.4
"""The standard deviation, in pixels, by which a picture is blurred that shows no certain face."""
_SAME_FACE = 0.5
"""Intersection over union of two boxes in consecutive frames that show one face."""


class UprightAnalyser:
    """An analyser for faces at any angle; the others are left to the one that it is given."""

    def __init__(self, analyser: Analyser, max_faces: int = 64) -> None:
        self._analyser = analyser
        self._max_faces = max_faces
        self.name = analyser.name

    def faces(self, images: Frames | Sequence[Image], check: Check = lambda: None) -> list[list[Face]]:
        """Return the faces in each image, the largest first; see ``FaceAnalyser``."""
        found = self._found(images, check)
        if len(images) == 1 and not any(face.certain for face in found[0]):
            # Grain and dithering hide faces from detectors, though not from people.
            softened = [np.asarray(cv2.GaussianBlur(images[0], (0, 0), _SOFTENED))]
            again = self._found(softened, check)
            if any(face.certain for face in again[0]):
                images, found = softened, again
        return self._analyser.describe(images, found, check)

    def _found(self, images: Frames | Sequence[Image], check: Check) -> list[list[Detection]]:
        """Return the largest faces in each image, upright ones and others."""
        found = []
        for image in images:
            check()
            found.append(self._analyser.detect(image))
        self._add_lying(images, found, check)
        found = [sorted(faces, key=lambda face: -face.area)[: self._max_faces] for faces in found]
        self._correct(images, found, careful=_CAREFUL if len(images) == 1 else 0, check=check)
        return [without_doubles(faces) for faces in found]

    def _add_lying(self, images: Frames | Sequence[Image], found: list[list[Detection]], check: Check) -> None:
        """Add the faces in each image that the detector sees only in the turned image.

        The images are frames of one film if there are several. Looking for faces beside those that
        are found takes three detections in an image of half the size, so it is done for the first
        frame, and for others where something has come or gone.
        """
        beside, before = True, -1
        for i, image in enumerate(images):
            upright = len(found[i])
            if beside or not upright or upright != before:
                check()
                lying = [face for face in self._lying(image) if not any(_is_rather(other, face) for other in found[i])]
                beside = bool(lying)
                found[i] = [*(face for face in found[i] if not any(may_be_same(one, face) for one in lying)), *lying]
            before = upright

    def _lying(self, image: Image) -> list[Detection]:
        """Return the faces in the turned image, in pixels of the image itself."""
        height, width = image.shape[:2]
        scale = min(1.0, self._analyser.detection_size / 2 / max(height, width))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        best: list[Detection] = []
        for turn in (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE):
            for one in self._analyser.detect(np.ascontiguousarray(cv2.rotate(small, turn))):
                back = turned_back(one, turn, height=small.shape[0], width=small.shape[1])
                back = replace(back, box=back.box / np.float32(scale), landmarks=back.landmarks / np.float32(scale))
                rival = next((other for other in best if overlap(other.box, back.box) > _SAME_FACE / 2), None)
                if rival is None or rival.score < back.score:
                    best = [other for other in best if other is not rival] + [back]
        return best

    def _correct(self, images: Frames | Sequence[Image], found: list[list[Detection]], *, careful: int, check: Check) -> None:
        """Replace the detections in ``found`` that may lean, and the ``careful`` largest."""
        places = [(i, j) for i, faces in enumerate(found) for j in range(len(faces))]
        sure = [(i, j) for i, j in places if _seems_upright(found[i][j])]
        turns = {(i, j): turn_of(found[i][j].landmarks) for i, j in sure}
        unknown = [place for place in places if place not in turns]
        careful_ones = {(i, j): turns[i, j] for i, j in sure if j < careful}
        self._straighten(images, found, places=[place for place in sure if place not in careful_ones], check=check)
        leaders = _leaders(found, unknown)
        first = [place for place in unknown if leaders[place] == place]
        lost = self._compare_turns(images, found, first, turns=turns, check=check)
        for place in unknown:
            # A head hardly turns within a chunk.
            if leaders[place] in lost:
                lost.add(place)
            else:
                turns[place] = turns[leaders[place]]
        again = {place: turns[place] for place in unknown if place not in lost} | careful_ones
        for look, is_fine in ((_ROUGH, False), (_FINE, True)):
            chosen = {(i, j): turn for (i, j), turn in again.items() if (j < careful) is is_fine}
            self._look_again(images, found, chosen, look=look, check=check)
        for i, j in lost:
            found[i][j] = replace(found[i][j], certain=False)

    def _straighten(
        self, images: Frames | Sequence[Image], found: list[list[Detection]], places: Sequence[tuple[int, int]], check: Check
    ) -> None:
        """Turn the landmarks of faces that seem upright, but are not.

        Most faces of a film are upright, and to find the lean of each takes as long as finding it.
        So the first frame tells how a face leans in a chunk, and cuts at two turns whether it does.
        """
        leaders = _leaders(found, places)
        first = [place for place in places if leaders[place] == place]
        views = [_Cut(turn, _SMALL, fill=0.5, mirrored=mirrored) for turn in _CHECK_TURNS for mirrored in (False, True)]
        seen = self._views(images, found, [(place, view) for place in first for view in views], check=check)
        wrong = {}
        for k, (i, j) in enumerate(first):
            there = [view for view in seen[k * len(views) : (k + 1) * len(views)] if view is not None]
            said = turn_of(found[i][j].landmarks)
            turn = fitted_turn(there) if len({view.turn for view in there}) > 1 else None
            if turn is None or apart(turn, said) > _CONTRADICTS:
                wrong[i, j] = said
        plain = {place: found[place[0]][place[1]] for place in places}
        self._look_again(images, found, wrong, look=_ROUGH, check=check)
        looked = {(i, j): found[i][j] for i, j in wrong}
        for i, j in places:
            leader = leaders[i, j]
            if leader in wrong:
                more = turn_of(looked[leader].landmarks) - wrong[leader]
                landmarks = turned_by(plain[i, j].landmarks, more)
                found[i][j] = replace(plain[i, j], landmarks=landmarks, certain=looked[leader].certain)

    def _compare_turns(
        self,
        images: Frames | Sequence[Image],
        found: list[list[Detection]],
        places: Sequence[tuple[int, int]],
        *,
        turns: dict[tuple[int, int], float],
        check: Check,
    ) -> set[tuple[int, int]]:
        """Set the turn of each place to the best one; return the places for which none is."""
        wanted = [(place, float(turn)) for place in places for turn in _TURNS]
        cuts = [cut_out(images[i], found[i][j], turn, side=_SMALL) for (i, j), turn in wanted]
        seen = self._in_cuts([pixels for pixels, _ in cuts], check)
        lost = set()
        pairs = zip(wanted, seen, strict=True)
        for place, group in groupby(pairs, key=lambda pair: pair[0][0]):
            scores = {turn: (one.score, turn + turn_of(one.landmarks)) for (_, turn), one in group if one is not None}
            best = _best_turn(scores)
            if best is None:
                lost.add(place)
            else:
                turns[place] = best
        return lost

    def _look_again(
        self,
        images: Frames | Sequence[Image],
        found: list[list[Detection]],
        turns: dict[tuple[int, int], float],
        *,
        look: _Look,
        check: Check,
    ) -> None:
        """Find the landmarks of the faces at the places of ``turns`` again, around their turns."""
        for time in range(_LOOKS):
            wanted = [(place, cut) for place, turn in turns.items() for cut in look.around(turn)]
            seen = self._views(images, found, wanted, check=check)
            count, again = len(wanted) // max(len(turns), 1), {}
            for k, ((i, j), turn) in enumerate(turns.items()):
                there = [view for view in seen[k * count : (k + 1) * count] if view is not None]
                if len(there) < _FEWEST_VIEWS or len({view.turn for view in there}) < _FEWEST_TURNS:
                    found[i][j] = replace(found[i][j], certain=False)
                    continue
                fitted = fitted_turn(there)
                landmarks = landmarks_at(fitted, there, self._analyser.larger)
                leans = apart(fitted, turn)
                score = max(view.score for view in there)
                certain = leans <= _LEANS and misfit(landmarks) <= _MISFIT and (score >= _CLEAR or apart(fitted, 0) <= _FAR / 2)
                found[i][j] = replace(found[i][j], landmarks=landmarks, score=score, certain=certain)
                if leans > _SETTLED and time + 1 < _LOOKS:
                    again[i, j] = fitted
            turns = again

    def _views(
        self,
        images: Frames | Sequence[Image],
        found: list[list[Detection]],
        wanted: Sequence[tuple[tuple[int, int], _Cut]],
        *,
        check: Check,
    ) -> list[View | None]:
        """Return what the detector sees of each face in a cut."""
        cuts = [cut_out(images[i], found[i][j], cut.turn, side=cut.side, fill=cut.fill) for (i, j), cut in wanted]
        pixels = [made[:, ::-1] if cut.mirrored else made for (made, _), (_, cut) in zip(cuts, wanted, strict=True)]
        views: list[View | None] = []
        for one, (_, matrix), (_, cut) in zip(self._in_cuts(pixels, check), cuts, wanted, strict=True):
            if one is None:
                views.append(None)
                continue
            points = one.landmarks
            if cut.mirrored:
                points = np.stack([cut.side - 1 - points[:, 0], points[:, 1]], axis=1)[MIRRORED]
            views.append(View(cut.turn, lean=turn_of(points), landmarks=placed(points, matrix), score=one.score))
        return views

    def _in_cuts(self, cuts: Sequence[Image], check: Check) -> list[Detection | None]:
        """Return the face in the middle of each square cut, or None.

        Cuts of one size are laid side by side, at most as many as fill the detector's own size.
        """
        results: dict[int, Detection | None] = {}
        for side in sorted({len(pixels) for pixels in cuts}):
            places = [k for k, pixels in enumerate(cuts) if len(pixels) == side]
            most = max(1, self._analyser.detection_size // side)
            for start in range(0, len(places), most * most):
                check()
                part = places[start : start + most * most]
                rows = -(-len(part) // most)
                columns = -(-len(part) // rows)
                # Where the detector enlarges, a sheet that is not full would have larger faces.
                least = self._analyser.detection_size if self._analyser.enlarges else 0
                sheet = np.zeros((max(least, rows * side), max(least, columns * side), 3), np.uint8)
                for k, place in enumerate(part):
                    top, left = k // columns * side, k % columns * side
                    sheet[top : top + side, left : left + side] = cuts[place]
                found = in_middles(self._analyser.detect(sheet), side, columns=columns, count=len(part))
                results.update(zip(part, found, strict=True))
        return [results[k] for k in range(len(cuts))]


def _seems_upright(face: Detection) -> bool:
    return face.score >= _SURE and abs(turn_of(face.landmarks)) <= _SLIGHT and misfit(face.landmarks) <= _MISFIT


def _is_rather(upright: Detection, lying: Detection) -> bool:
    """Return whether the detection ``lying``, in a turned image, is rather ``upright``."""
    return may_be_same(lying, upright) and upright.score > lying.score - _CLEARLY_BETTER


def _leaders(found: list[list[Detection]], places: Sequence[tuple[int, int]]) -> dict[tuple[int, int], tuple[int, int]]:
    """Return the place in the earliest frame of each chunk that shows the same face."""
    leaders: dict[tuple[int, int], tuple[int, int]] = {}
    first: list[tuple[int, int]] = []
    for i, j in places:
        same = (
            place for place in first if place[0] < i and overlap(found[place[0]][place[1]].box, found[i][j].box) >= _SAME_FACE
        )
        leader = next(same, None)
        if leader is None:
            first.append((i, j))
        leaders[i, j] = leader or (i, j)
    return leaders


def _best_turn(scores: dict[float, tuple[float, float]]) -> float | None:
    """Return the turn that makes a face upright, from the score and the exact turn at each turn.

    It is None if no turn is, or if turns that contradict each other score alike.
    """
    if not scores:
        return None
    first = max(scores, key=lambda turn: scores[turn][0])
    upright = [turn for turn in scores if apart(turn, 0) <= 30]
    if upright:
        most = max(upright, key=lambda turn: scores[turn][0])
        # A blurred face scores low at every turn; most faces are upright.
        if scores[first][0] < scores[most][0] + _CLEARLY_BETTER:
            first = most
    best, exact = scores[first]
    rivals = [score for turn, (score, _) in scores.items() if apart(turn, first) >= _FAR]
    if apart(first, 0) > 30 and rivals and max(rivals) > best - _CLEARLY_BETTER:
        return None
    return exact
