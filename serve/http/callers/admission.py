"""Limits how many requests are in progress in one ingress replica."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from serve.problems import unavailable

UNKNOWN_S = 10.0
"""The estimate of when there is room again, until a request has been measured, in seconds."""
_WEIGHT = 0.2
"""The weight of the latest request in the mean time that a request takes."""


class Admission:
    """Admits up to ``limit`` requests at a time, those that wait for a model included.

    One caller has at most half of the places, so that nobody can take all of them. A refusal says
    when a place is likely to be free: requests that take a mean time each leave n places in that
    time.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._limit_of_one = max(1, limit // 2)
        self._clock = clock
        self._admitted: Counter[str] = Counter()
        self._mean_s: float | None = None

    def check(self, caller: str) -> None:
        """Raise a 503 problem if there is no room for another request of ``caller``."""
        count = self._admitted.total()
        if count >= self._limit:
            raise unavailable("too many requests are in progress", self._until_room_s(count))
        if self._admitted[caller] >= self._limit_of_one:
            detail = f"{self._limit_of_one} requests of yours are in progress, which is as many as one caller may have"
            raise unavailable(detail, self._until_room_s(self._admitted[caller]))

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Count a request while the block runs; raise a 503 problem if there is no room."""
        self.check(caller)
        self._admitted[caller] += 1
        began = self._clock()
        try:
            yield
        finally:
            self._measure(self._clock() - began)
            self._admitted[caller] -= 1
            if not self._admitted[caller]:
                del self._admitted[caller]

    def _measure(self, seconds: float) -> None:
        self._mean_s = seconds if self._mean_s is None else _WEIGHT * seconds + (1 - _WEIGHT) * self._mean_s

    def _until_room_s(self, count: int) -> float:
        return UNKNOWN_S if self._mean_s is None else self._mean_s / count
