"""Decides whether a service that was up is lost, from its processes and from its answers."""

import os
import time
from collections.abc import Callable, Sequence

MISSING_S = 20.0
"""Seconds for which a process that Serve should replace may be missing."""

SILENT_S = 45.0
"""Seconds without an answer, with all processes there. Serve replaces what is hung by then."""

LONGEST_S = 51.0
"""The most seconds for either, however busy the machine is: with the looks and the probes, a dead
service ends within a minute."""


def load_factor() -> float:
    """Return how much longer things take on this machine now: threads to run for each CPU, or 1."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


class Watch:
    """Gives a verdict on each look at a service.

    A process that Serve replaces may be away for a while, and a probe may fail for a while: on a
    busy machine for longer, by ``load``, since a new process takes as much longer to start there,
    but never for more than ``LONGEST_S``, since a load may have no bound.
    What is not replaced may not end at all. ``clock`` gives seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, load: Callable[[], float] = load_factor) -> None:
        self._clock = clock
        self._load = load
        self._missing_since: dict[str, float] = {}
        self._silent_since: float | None = None

    def verdict(self, *, ended: Sequence[str], missing: Sequence[str], silence: str | None) -> str | None:
        """Return why the service is lost, or None.

        ``ended`` and ``missing`` are processes, as ``ProcessTree`` has them, and ``silence`` is why
        the service did not answer, or None if it did.
        """
        now = self._clock()
        self._missing_since = {name: self._missing_since.get(name, now) for name in missing}
        self._silent_since = None if silence is None else now if self._silent_since is None else self._silent_since
        if ended:
            return f"{' and '.join(ended)} ended"
        load = self._load()
        for name, since in self._missing_since.items():
            if now - since > min(MISSING_S * load, LONGEST_S):
                return f"{name} ended and was not replaced within {now - since:.0f} s"
        if self._silent_since is not None and now - self._silent_since > min(SILENT_S * load, LONGEST_S):
            return f"/healthz did not answer for {now - self._silent_since:.0f} s ({silence})"
        return None
