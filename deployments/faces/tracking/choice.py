"""Chooses which of the faces in a frame are replaced."""

from collections.abc import Sequence

from deployments.faces.tracking.casting import CLEARLY_MORE_ALIKE, Casting
from deployments.faces.tracking.tracks import TrackedFace
from deployments.wire import Choice

_CLEARLY_LARGER = 1.5
"""How many times larger another face must be to take over: two of nearly one size would
alternate."""


class Chooser:
    """Chooses by a request's ``Choice`` and stays with a person while they are visible."""

    def __init__(self, choice: Choice, match_threshold: float) -> None:
        self._choice = choice
        self._threshold = match_threshold
        self._last: int | None = None
        """The track that was chosen last."""
        self._cast = Casting(choice.people, match_threshold)

    def __call__(self, faces: Sequence[TrackedFace]) -> list[TrackedFace]:
        """Return those of a frame's faces that are replaced.

        They may include a face that is not visible yet.
        """
        if self._choice.faces == "map":
            return self._cast(faces)
        target = self._choice.target
        likeness = {face.track: 1.0 if target is None else float(face.identity @ target) for face in faces}
        faces = [face for face in faces if target is None or likeness[face.track] >= self._threshold]
        if target is not None or self._choice.faces in ("largest", "all"):
            # The others matter only if faces are counted from a side.
            faces = [face for face in faces if face.visible]
        if self._choice.faces == "all" or not faces:
            return list(faces)
        picked = self._pick(faces) if target is None else max(faces, key=lambda face: likeness[face.track])
        last = next((face for face in faces if face.track == self._last), None)
        if last is not None and not (picked is not None and self._takes_over(picked, last, likeness)):
            picked = last
        self._last = None if picked is None else picked.track
        return [] if picked is None else [picked]

    def _takes_over(self, other: TrackedFace, last: TrackedFace, likeness: dict[int, float]) -> bool:
        """Return whether ``other`` takes over from the last choice.

        It does if it is clearly more alike or, with the choice "largest", clearly larger.
        """
        if self._choice.target is not None:
            return likeness[other.track] >= likeness[last.track] + CLEARLY_MORE_ALIKE
        return self._choice.faces == "largest" and other.face.area >= _CLEARLY_LARGER * last.face.area

    def _pick(self, faces: Sequence[TrackedFace]) -> TrackedFace | None:
        if self._choice.faces == "largest":
            return max(faces, key=lambda face: face.face.area)
        row = sorted(faces, key=lambda face: float(face.face.box[0] + face.face.box[2]))
        index = {"left": 0, "right": -1, "index": self._choice.index}[self._choice.faces]
        return row[index] if index < len(row) else None
