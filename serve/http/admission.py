"""Limits how many requests are in progress in one ingress replica, and knows how long they take."""

from collections.abc import Iterator
from contextlib import contextmanager

from serve.http.problems import unavailable


class Admission:
    """Admits up to ``limit`` requests at a time, those that wait for a model included."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._admitted = 0
        self._durations: dict[str, float] = {}

    def check(self) -> None:
        """Raise a 503 problem if there is no room for another request."""
        if self._admitted >= self._limit:
            raise unavailable("too many requests are in progress", retry_after_s=10)

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Count a request while the block runs; raise a 503 problem if there is no room."""
        self.check()
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    def note_duration(self, model: str, seconds: float) -> None:
        """Remember how long the latest request of a model took."""
        self._durations[model] = seconds

    def last_duration(self, model: str, default: float) -> float:
        """Return how long the latest request of a model took: when its full queue may have room."""
        return self._durations.get(model, default)
