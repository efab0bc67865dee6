"""Limits how many connections to one ingress replica wait for news of jobs."""

from collections import Counter
from collections.abc import Callable

from serve.problems import unavailable


class Listeners:
    """The places of those who wait: ``limit`` in all, ``limit_of_one`` for one caller."""

    def __init__(self, *, limit: int, limit_of_one: int) -> None:
        self._limit = limit
        self._limit_of_one = limit_of_one
        self._held: Counter[str] = Counter()

    @property
    def count(self) -> int:
        """How many places are taken."""
        return self._held.total()

    def admit(self, caller: str) -> Callable[[], None]:
        """Take a place and return what gives it back; raise a 503 problem if there is none."""
        if self.count >= self._limit:
            raise unavailable("too many connections wait for jobs: read the job's record instead", retry_after_s=10)
        if self._held[caller] >= self._limit_of_one:
            detail = f"{self._limit_of_one} connections of yours wait for jobs, which is as many as one caller may have"
            raise unavailable(f"{detail}: read the job's record instead", retry_after_s=10)
        self._held[caller] += 1
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._held[caller] -= 1
                if not self._held[caller]:
                    del self._held[caller]

        return release
