"""Finds faces at any angle: heads that lean, lie on their side or are upside down.

Detectors are trained on upright faces. From about 45 degrees on they find a face, but put its
landmarks where those of an upright face would be. Their score tells: it is highest for the turn
that makes the face upright. So every face that is not surely upright is cut out at many turns, all
cuts are laid side by side in one picture, and the detector looks at that picture once. Its
landmarks are then found again in a larger, upright cut.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from deployments.faces.compositing.alignment import ARCFACE, Matrix, align
from deployments.wire import Face, Frames, Image

Check = Callable[[], None]
Points = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detection:
    """A face before it is identified, in pixels of the image."""

    box: npt.NDArray[np.float32]
    landmarks: Points
    score: float
    certain: bool = True
    """Whether the landmarks can be trusted."""

    @property
    def centre(self) -> npt.NDArray[np.float32]:
        """The middle of the box."""
        return np.asarray((self.box[:2] + self.box[2:]) / 2, np.float32)

    @property
    def area(self) -> float:
        """The area of the box."""
        return float(np.prod(np.maximum(self.box[2:] - self.box[:2], 0)))

    @property
    def size(self) -> float:
        """The longer side of the box."""
        return max(float((self.box[2:] - self.box[:2]).max()), 1.0)


class Analyser(Protocol):
    """Detects faces and describes them, each on its own."""

    name: str
    detection_size: int

    def detect(self, image: Image) -> list[Detection]:
        """Return the faces in a uint8 RGB image."""

    def describe(
        self, images: Frames | Sequence[Image], found: Sequence[Sequence[Detection]], check: Check
    ) -> list[list[Face]]:
        """Return the faces with their embeddings, the largest of each image first."""


_SURE = 0.89
"""The score at which a face is surely upright. Faces that are not get 0.88 at most (YuNet)."""
_LEVEL = 6.0
"""Degrees by which a sure face may lean without a second look."""
_SLIGHT, _AGREES = 10.0, 3.0
"""Up to so many degrees a small cut tells whether the landmarks of a sure face are right: turned by
what they say, it must lean by no more than that."""
_TURNS = tuple(range(0, 360, 30))
_FAR = 75.0
"""Degrees between turns that cannot both be nearly right."""
_CLEARLY_BETTER = 0.03
"""How much better than the image itself another turn must score, and better than turns that are
far from it."""
_SMALL, _LARGE = 96, 212
"""The sides of the cuts that are compared, and of those in which landmarks are found."""
_VIEWS = (-10.0, 0.0, 10.0)
"""The degrees by which the cuts lean in which landmarks are found; the landmarks are averaged."""
_LOOKS, _SETTLED = 4, 2.0
"""How often the landmarks are found again, until the face leans by no more degrees in its cut."""
_LEANS = 15.0
"""Degrees by which a face may lean in its upright cut."""
_MISFIT = 0.3
"""The mean distance of landmarks from those of a face, in distances between the eyes."""
_SAME_FACE = 0.5
"""Intersection over union of two boxes in consecutive frames that show one face."""


class UprightAnalyser:
    """An analyser for faces at any angle; the others are left to the one that it is given."""

    def __init__(self, analyser: Analyser, max_faces: int = 64) -> None:
        self._analyser = analyser
        self._max_faces = max_faces
        self.name = analyser.name

    def faces(
        self, images: Frames | Sequence[Image], check: Check = lambda: None, *, thorough: bool = False
    ) -> list[list[Face]]:
        """Return the faces in each image, the largest first; see ``FaceAnalyser``."""
        found = []
        for image in images:
            check()
            found.append(self._analyser.detect(image))
        self._add_lying(images, found, check)
        found = [sorted(faces, key=lambda face: -face.area)[: self._max_faces] for faces in found]
        self._correct(images, found, thorough=thorough, check=check)
        return self._analyser.describe(images, found, check)

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
                lying = [face for face in self._lying(image) if not any(_may_be_same(face, other) for other in found[i])]
                beside = bool(lying)
                found[i] = [*found[i], *lying]
            before = upright

    def _lying(self, image: Image) -> list[Detection]:
        """Return the faces in the turned image, in pixels of the image itself."""
        height, width = image.shape[:2]
        scale = min(1.0, self._analyser.detection_size / 2 / max(height, width))
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else image
        best: list[Detection] = []
        for turn in (cv2.ROTATE_90_CLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_COUNTERCLOCKWISE):
            for one in self._analyser.detect(np.ascontiguousarray(cv2.rotate(small, turn))):
                back = _turned_back(one, turn, height=small.shape[0], width=small.shape[1])
                back = replace(back, box=back.box / np.float32(scale), landmarks=back.landmarks / np.float32(scale))
                rival = next((other for other in best if _overlap(other.box, back.box) > _SAME_FACE / 2), None)
                if rival is None or rival.score < back.score:
                    best = [other for other in best if other is not rival] + [back]
        return best

    def _correct(self, images: Frames | Sequence[Image], found: list[list[Detection]], *, thorough: bool, check: Check) -> None:
        """Replace the detections in ``found`` that are not surely upright."""
        doubtful = [(i, j) for i, faces in enumerate(found) for j, face in enumerate(faces) if not _is_sure(face)]
        if not thorough:
            doubtful = self._without_slight(images, found, places=doubtful, check=check)
        if not doubtful:
            return
        turns: dict[tuple[int, int], float] = {}
        unlike: list[tuple[int, int]] = []
        like: dict[tuple[int, int], tuple[int, int]] = {}
        for i, j in doubtful:
            # A head hardly turns within a chunk.
            boxes = ((place, found[place[0]][place[1]].box) for place in unlike if place[0] < i)
            twin = next((place for place, box in boxes if _overlap(box, found[i][j].box) >= _SAME_FACE), None)
            if twin is None:
                unlike.append((i, j))
            else:
                like[i, j] = twin
        lost = self._compare_turns(images, found, unlike, turns=turns, check=check)
        for place, twin in like.items():
            if twin in lost:
                lost.add(place)
            else:
                turns[place] = turns[twin]
        self._look_again(images, found, [place for place in doubtful if place not in lost], turns=turns, check=check)
        for i, j in lost:
            found[i][j] = replace(found[i][j], certain=False)

    def _without_slight(
        self,
        images: Frames | Sequence[Image],
        found: list[list[Detection]],
        places: Sequence[tuple[int, int]],
        check: Check,
    ) -> list[tuple[int, int]]:
        """Return the places without faces that lean slightly and whose landmarks prove right.

        Most faces of a film are such, and a full second look takes longer than finding them.
        """
        slight = [place for place in places if _leans_slightly(found[place[0]][place[1]])]
        cuts = [_cut(images[i], found[i][j], turn=_turn(found[i][j].landmarks), side=_SMALL)[0] for i, j in slight]
        seen = self._in_cuts(cuts, _SMALL, check)
        right = {
            place
            for place, one in zip(slight, seen, strict=True)
            if one is not None and one.score >= _SURE and abs(_turn(one.landmarks)) <= _AGREES
        }
        return [place for place in places if place not in right]

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
        cuts = [_cut(images[i], found[i][j], turn=turn, side=_SMALL) for (i, j), turn in wanted]
        seen = self._in_cuts([pixels for pixels, _ in cuts], _SMALL, check)
        lost = set()
        pairs = zip(wanted, seen, strict=True)
        for place, group in groupby(pairs, key=lambda pair: pair[0][0]):
            scores = {turn: (one.score, turn + _turn(one.landmarks)) for (_, turn), one in group if one is not None}
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
        places: Sequence[tuple[int, int]],
        *,
        turns: dict[tuple[int, int], float],
        check: Check,
    ) -> None:
        """Find the landmarks of the places again in upright cuts."""
        left = list(places)
        for look in range(_LOOKS):
            wanted = [(place, turns[place] + lean) for place in left for lean in _VIEWS]
            cuts = [_cut(images[i], found[i][j], turn=turn, side=_LARGE) for (i, j), turn in wanted]
            seen = self._in_cuts([pixels for pixels, _ in cuts], _LARGE, check)
            again = []
            for k, (i, j) in enumerate(left):
                views = range(k * len(_VIEWS), (k + 1) * len(_VIEWS))
                places_seen = [_placed(one.landmarks, cuts[v][1]) for v in views if (one := seen[v]) is not None]
                if not places_seen:
                    found[i][j] = replace(found[i][j], certain=False)
                    continue
                landmarks = np.asarray(np.mean(places_seen, axis=0), np.float32)
                score = max(one.score for v in views if (one := seen[v]) is not None)
                leans = _apart(_turn(landmarks), turns[i, j])
                certain = leans <= _LEANS and _misfit(landmarks) <= _MISFIT
                found[i][j] = replace(found[i][j], landmarks=landmarks, score=score, certain=certain)
                if leans > _SETTLED and look + 1 < _LOOKS:
                    turns[i, j] = _turn(landmarks)
                    again.append((i, j))
            left = again

    def _in_cuts(self, cuts: Sequence[Image], side: int, check: Check) -> list[Detection | None]:
        """Return the face in the middle of each cut of ``side`` pixels, or None."""
        results: list[Detection | None] = []
        row = max(1, self._analyser.detection_size // side)
        for start in range(0, len(cuts), row * row):
            check()
            part = cuts[start : start + row * row]
            columns = min(row, len(part))
            sheet = np.zeros((-(-len(part) // columns) * side, columns * side, 3), np.uint8)
            for k, pixels in enumerate(part):
                top, left = k // columns * side, k % columns * side
                sheet[top : top + side, left : left + side] = pixels
            everything = self._analyser.detect(sheet)
            for k in range(len(part)):
                offset = np.array([k % columns * side, k // columns * side], np.float32)
                results.append(_in_middle(everything, offset, side))
        return results


def _is_sure(face: Detection) -> bool:
    return face.score >= _SURE and abs(_turn(face.landmarks)) <= _LEVEL and _misfit(face.landmarks) <= _MISFIT


def _leans_slightly(face: Detection) -> bool:
    return face.score >= _SURE and abs(_turn(face.landmarks)) <= _SLIGHT and _misfit(face.landmarks) <= _MISFIT


def _best_turn(scores: dict[float, tuple[float, float]]) -> float | None:
    """Return the turn that makes a face upright, from the score and the exact turn at each turn.

    It is None if no turn is, or if turns that contradict each other score alike.
    """
    if not scores:
        return None
    first = max(scores, key=lambda turn: scores[turn][0])
    upright = [turn for turn in scores if _apart(turn, 0) <= 30]
    if upright:
        most = max(upright, key=lambda turn: scores[turn][0])
        # A blurred face scores low at every turn; most faces are upright.
        if scores[first][0] < scores[most][0] + _CLEARLY_BETTER:
            first = most
    best, exact = scores[first]
    rivals = [score for turn, (score, _) in scores.items() if _apart(turn, first) >= _FAR]
    if _apart(first, 0) > 30 and rivals and max(rivals) > best - _CLEARLY_BETTER:
        return None
    return exact


def _apart(one: float, other: float) -> float:
    """Return the angle between two turns, 0 to 180 degrees."""
    return abs((one - other + 180) % 360 - 180)


def _turn(landmarks: Points) -> float:
    """Return the degrees, clockwise, by which a face must be turned to be upright."""
    matrix = align(landmarks, ARCFACE)
    return float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))


def _misfit(landmarks: Points) -> float:
    matrix = align(landmarks, ARCFACE)
    placed = landmarks @ matrix[:, :2].T + matrix[:, 2]
    return float(np.linalg.norm(placed - ARCFACE, axis=1).mean() / np.linalg.norm(ARCFACE[1] - ARCFACE[0]))


def _cut(image: Image, face: Detection, turn: float, side: int) -> tuple[Image, Matrix]:
    """Return a square cut in which the turned face fills half of the side, and its matrix."""
    scale = side / 2 / face.size
    factor = max(1, int(0.5 / scale))
    left, top = (max(0, int(v - 2 * face.size)) for v in face.centre)
    right, bottom = (int(v + 2 * face.size) + 1 for v in face.centre)
    region = image[top:bottom, left:right]
    if factor > 1:  # linear sampling alone would alias
        region = cv2.resize(region, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    shrink = np.array(
        [
            region.shape[1] / max(min(right, image.shape[1]) - left, 1),
            region.shape[0] / max(min(bottom, image.shape[0]) - top, 1),
        ]
    )
    c, s = np.cos(np.radians(turn)) * scale, np.sin(np.radians(turn)) * scale
    linear = np.array([[c, -s], [s, c]])
    matrix = np.column_stack([linear, side / 2 - linear @ face.centre])
    within = np.column_stack([linear / shrink, matrix[:, 2] + linear @ [left, top]])
    pixels = cv2.warpAffine(region, within, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(pixels), matrix


def _placed(landmarks: Points, matrix: Matrix) -> npt.NDArray[np.float64]:
    """Return landmarks in a cut as landmarks in its image."""
    back = cv2.invertAffineTransform(matrix)
    return np.asarray(landmarks @ back[:, :2].T + back[:, 2])


def _in_middle(found: Sequence[Detection], offset: npt.NDArray[np.float32], side: int) -> Detection | None:
    """Return the best face near the middle of the cut at ``offset``, in pixels of the cut."""
    best: Detection | None = None
    for one in found:
        away = np.abs(one.centre - offset - side / 2).max()
        if away <= 0.3 * side and 0.25 * side <= one.size <= 0.9 * side and (best is None or one.score > best.score):
            best = one
    return None if best is None else replace(best, box=best.box - np.tile(offset, 2), landmarks=best.landmarks - offset)


def _turned_back(face: Detection, turn: int, height: int, width: int) -> Detection:
    """Return a face of a turned image in pixels of the image, which has the given size."""

    def back(points: Any) -> Any:
        x, y = points[:, 0], points[:, 1]
        if turn == cv2.ROTATE_90_CLOCKWISE:
            return np.stack([y, height - 1 - x], axis=1)
        if turn == cv2.ROTATE_180:
            return np.stack([width - 1 - x, height - 1 - y], axis=1)
        return np.stack([width - 1 - y, x], axis=1)

    corners = back(face.box.reshape(2, 2))
    box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    return replace(face, box=np.asarray(box, np.float32), landmarks=np.asarray(back(face.landmarks), np.float32))


def _may_be_same(lying: Detection, upright: Detection) -> bool:
    """Return whether two detections, one of them in the turned image, may be of one face."""
    pairs = (upright.box, lying.centre), (lying.box, upright.centre)
    return any(bool(np.all((box[:2] < point) & (point < box[2:]))) for box, point in pairs)


def _overlap(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    """Return the intersection over union of two boxes."""
    shared = float(np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)))
    areas = sum(float(np.prod(np.maximum(box[2:] - box[:2], 0))) for box in (a, b))
    return shared / max(areas - shared, 1e-9)
