"""Decides which reference replaces which of several people, and keeps to it."""

from collections.abc import Sequence
from dataclasses import replace

from deployments.faces.tracking.tracks import TrackedFace
from deployments.wire import Embedding

CLEARLY_MORE_ALIKE = 0.1
"""How much higher another face's cosine to the target must be for it to take over.

It can, since the person to be replaced may come in after somebody who looks like them.
"""


class Casting:
    """Gives each person the reference that replaces them, one person to one reference.

    ``people`` are the persons whom the references replace. One that is None is given to the next
    new person, counted from the left, and then belongs to that person for good, also after a cut or
    an absence.
    """

    def __init__(self, people: Sequence[Embedding | None], threshold: float) -> None:
        self._people = list(people)
        self._threshold = threshold
        self._last: dict[int, int] = {}
        """Reference -> the track that it replaced last."""

    def __call__(self, faces: Sequence[TrackedFace]) -> list[TrackedFace]:
        """Return the visible faces that are replaced, each with its ``source``."""
        self._give_to_new(faces)
        scores = [
            (score, source, face)
            for source, person in enumerate(self._people)
            if person is not None
            for face in faces
            if face.visible and (score := self._score(source, person, face)) > 0
        ]
        scores.sort(key=lambda entry: (-entry[0], entry[1], entry[2].track))
        chosen: dict[int, TrackedFace] = {}
        taken: set[int] = set()
        for _, source, face in scores:
            if source not in chosen and face.track not in taken:
                chosen[source] = replace(face, source=source)
                taken.add(face.track)
        self._last |= {source: face.track for source, face in chosen.items()}
        return [chosen[source] for source in sorted(chosen)]

    def _score(self, source: int, person: Embedding, face: TrackedFace) -> float:
        """Return how well a face is the person whom ``source`` replaces; 0 if it is not."""
        likeness = float(face.identity @ person)
        if likeness < self._threshold:
            return 0.0
        return likeness + (CLEARLY_MORE_ALIKE if self._last.get(source) == face.track else 0.0)

    def _give_to_new(self, faces: Sequence[TrackedFace]) -> None:
        """Give the references that belong to nobody yet to people who are new, from the left."""
        free = [source for source, person in enumerate(self._people) if person is None]
        if not free or not any(face.visible for face in faces):
            return
        for face in sorted(faces, key=lambda face: float(face.face.box[0] + face.face.box[2])):
            known = any(person is not None and float(face.identity @ person) >= self._threshold for person in self._people)
            if not known and free:
                self._people[free.pop(0)] = face.identity
