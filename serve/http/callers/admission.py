"""Limits how many requests are in progress in one ingress replica."""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean

from serve.problems import over_quota, unavailable

UNKNOWN_S = 10.0
"""The estimate of when there is room again, until a request has been measured, in seconds."""
_WEIGHT = 0.2
"""The weight of the latest request in the mean time that a request takes."""


class Admission:
    """Admits up to ``limit`` requests at a time, those that wait for a model included.

    One caller has at most half of the places, so that nobody can take all of them. A refusal says
    when a place is likely to be free: n requests that take a mean time each leave n places in that
    time, and those that have already taken longer than the mean take as long again.
    """

    def __init__(self, limit: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._limit_of_one = max(1, limit // 2)
        self._clock = clock
        self._began: dict[str, list[float]] = {}
        """When the requests in progress began, by their callers."""
        self._mean_s: float | None = None

    def check(self, caller: str) -> None:
        """Raise a 503 problem if there is no room, or a 429 problem if ``caller`` has its share."""
        everyone, own = [*itertools.chain(*self._began.values())], self._began.get(caller, [])
        if len(everyone) >= self._limit:
            raise unavailable("too many requests are in progress", self._until_room_s(everyone))
        if len(own) >= self._limit_of_one:
            detail = f"{self._limit_of_one} requests of yours are in progress, which is as many as one caller may have"
            raise over_quota(detail, self._until_room_s(own))

    @contextmanager
    def admit(self, caller: str) -> Iterator[None]:
        """Count a request while the block runs; raise what ``check`` raises."""
        self.check(caller)
        began = self._clock()
        self._began.setdefault(caller, []).append(began)
        try:
            yield
            self._measure(self._clock() - began)
        finally:
            self._began[caller].remove(began)
            if not self._began[caller]:
                del self._began[caller]

    def _measure(self, seconds: float) -> None:
        self._mean_s = seconds if self._mean_s is None else _WEIGHT * seconds + (1 - _WEIGHT) * self._mean_s

    def _until_room_s(self, began: Sequence[float]) -> float:
        """Return the time until one of the requests that began at these times is likely to end."""
        mean_s = UNKNOWN_S if self._mean_s is None else self._mean_s
        now = self._clock()
        return fmean(max(mean_s, now - start) for start in began) / len(began)
