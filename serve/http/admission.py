"""Limits how many requests are in progress in one ingress replica."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from serve.problems import unavailable


class Admission:
    """Admits up to ``limit`` requests at a time, those that wait for a model included.

    One caller has at most half of the places, so that nobody can take all of them.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._limit_of_one = max(1, limit // 2)
        self._admitted: Counter[str] = Counter()

    def check(self, caller: str) -> None:
        """Raise a 503 problem if there is no room for another request of ``caller``."""
        if self._admitted.total() >= self._limit:
            raise unavailable("too many requests are in progress", retry_after_s=10)
        if self._admitted[caller] >= self._limit_of_one:
            detail = f"{self._limit_of_one} requests of yours are in progress, which is as many as one caller may have"
            raise unavailable(detail, retry_after_s=10)

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Count a request while the block runs; raise a 503 problem if there is no room."""
        self.check(caller)
        self._admitted[caller] += 1
        try:
            yield
        finally:
            self._admitted[caller] -= 1
            if not self._admitted[caller]:
                del self._admitted[caller]
