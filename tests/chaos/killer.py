"""Kills processes of a service with SIGKILL, at moments and of kinds that a seed gives."""

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import psutil

from loadtest.processes import running_processes

STARTING = "initialize_and_get_metadata"
"""What Ray writes into the title of a replica that starts."""


@dataclass(frozen=True)
class Kill:
    """A process that was killed, and when, in seconds from the first order."""

    at: float
    kind: str
    pid: int


class Killer:
    """Kills until it is stopped. ``weights`` are the kinds and how often each is chosen.

    ``root`` returns the process from which those of the service descend, or None while it is away.
    ``pause_s`` is the mean time between two kills, whose lengths are spread as those between random
    events are. A kind of which nothing runs is passed over.
    """

    def __init__(
        self,
        seed: int,
        root: Callable[[], int | None],
        *,
        weights: Mapping[str, float],
        pause_s: float,
        most: Mapping[str, int],
    ) -> None:
        self._random = random.Random(seed)
        self._root = root
        self._weights = dict(weights)
        self._pause_s = pause_s
        self._most = dict(most)
        self.kills: list[Kill] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._began = time.monotonic()

    def __enter__(self) -> "Killer":
        self._began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def counts(self) -> Counter[str]:
        """Return how many processes of each kind were killed."""
        return Counter(kill.kind for kill in self.kills)

    def _run(self) -> None:
        while not self._stopped.wait(min(self._random.expovariate(1 / self._pause_s), 4 * self._pause_s)):
            kind = self._random.choices(list(self._weights), list(self._weights.values()))[0]
            place = self._random.random()
            if self.counts()[kind] < self._most.get(kind, 10**9):
                self._kill(kind, place)

    def _kill(self, kind: str, place: float) -> None:
        """Kill one process of a kind; ``place`` from 0 to 1 says which."""
        root = self._root()
        if root is None:
            return
        found = [process for process in running_processes(kind, root) if not _is_starting(process)]
        if not found:
            return
        process = found[int(place * len(found))]
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
            kill = Kill(round(time.monotonic() - self._began, 1), kind, process.pid)
            self.kills.append(kill)
            print(f"{kill.at:6.1f} s: killed {kind} {process.pid}", flush=True)


def _is_starting(process: psutil.Process) -> bool:
    """Return whether a replica loads what it needs still; Serve gives up after three that die."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return STARTING in " ".join(process.cmdline())
    return True
