"""Which of the faces in a frame are replaced."""

from collections.abc import Sequence

from deployments.faces.tracks import Tracked
from deployments.wire import Choice

_CLEARLY_LARGER = 1.5
"""By how much another face must be the larger one before it is taken instead: two of nearly one size would take turns."""

_CLEARLY_MORE_ALIKE = 0.1
"""By how much another's cosine to the target must be higher: the person wanted may come in after one who looks like them."""


class Chooser:
    """Picks by a request's ``Choice``, and stays with a person for as long as they are there."""

    def __init__(self, choice: Choice, match_threshold: float) -> None:
        self._choice = choice
        self._threshold = match_threshold
        self._kept: int | None = None
        """The track that was picked last."""

    def __call__(self, faces: Sequence[Tracked]) -> list[Tracked]:
        """Those of a frame's faces that are to be replaced; among the picked may be one that is only coming."""
        target = self._choice.target
        alike = {one.track: 1.0 if target is None else float(one.identity @ target) for one in faces}
        faces = [one for one in faces if target is None or alike[one.track] >= self._threshold]
        if target is not None or self._choice.faces in ("largest", "all"):
            faces = [one for one in faces if one.here]  # only where faces are counted from a side do the coming ones count
        if self._choice.faces == "all" or not faces:
            return list(faces)
        picked = self._pick(faces) if target is None else max(faces, key=lambda one: alike[one.track])
        kept = next((one for one in faces if one.track == self._kept), None)
        if kept is not None and not (picked is not None and self._takes_over(picked, kept, alike)):
            picked = kept
        self._kept = None if picked is None else picked.track
        return [] if picked is None else [picked]

    def _takes_over(self, other: Tracked, kept: Tracked, alike: dict[int, float]) -> bool:
        """Whether another than the person picked last is meant now: one clearly more alike, or clearly larger, as the choice is."""
        if self._choice.target is not None:
            return alike[other.track] >= alike[kept.track] + _CLEARLY_MORE_ALIKE
        return self._choice.faces == "largest" and other.face.area >= _CLEARLY_LARGER * kept.face.area

    def _pick(self, faces: Sequence[Tracked]) -> Tracked | None:
        if self._choice.faces == "largest":
            return max(faces, key=lambda one: one.face.area)
        row = sorted(faces, key=lambda one: float(one.face.box[0] + one.face.box[2]))
        index = {"left": 0, "right": -1, "index": self._choice.index}[self._choice.faces]
        return row[index] if index < len(row) else None
