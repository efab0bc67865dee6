"""What the calls and jobs of callers.py led to, read from the log of their pod."""

import json
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tests.e2e.cluster import Cluster, Json, wait_until

SWAP = "/image-faceswap"
JOB = "job of "
"""With it begins the path of a job, whose result has the pixels of the answer to the plain call."""
BEGUN_S = 1.0
"""A video is under way this long after it began."""


@dataclass(frozen=True)
class Outcome:
    """The calls and jobs that were under way, or began, since something was lost."""

    calls: int
    jobs: int
    """How many of the calls were jobs."""
    failed: list[Json]
    wrong: list[Json]
    again: int
    """Calls that were answered at a second attempt."""
    gap_s: float
    """The longest time between two answers to face swaps."""
    slowest_s: float

    @property
    def lost_jobs(self) -> list[Json]:
        """The jobs without a result. They outlive the connections of their callers."""
        return [call for call in self.failed if call["path"].startswith(JOB)]

    def __str__(self) -> str:
        failures = sorted({f"{call['path']} {call['status']} {call['detail'][:150]}" for call in self.failed})
        return (
            f"{len(self.failed)} of {self.calls} calls failed ({len(self.lost_jobs)} of {self.jobs} jobs), {len(self.wrong)} with "
            f"wrong pixels, {self.again} at the second attempt, longest gap between swaps {self.gap_s:.1f} s, slowest call "
            f"{self.slowest_s:.1f} s" + "".join(f"\n  {line}" for line in failures)
        )


class Calls:
    """The calls of one pod, which runs callers.py."""

    def __init__(self, cluster: Cluster, pod: str) -> None:
        self._cluster, self._pod = cluster, pod
        self._right: dict[str, str] = {}

    def _entries(self) -> list[Json]:
        lines: list[Any] = [json.loads(line) for line in self._cluster.kubectl("logs", self._pod).splitlines()]
        return lines

    def ended(self) -> list[Json]:
        """Return the calls that have ended, in the order of their ends."""
        return [entry for entry in self._entries() if "ended" in entry]

    def remember(self) -> None:
        """Take the answers so far, of which none may have failed, for the right ones."""
        for call in self.ended():
            assert call["status"] == 200, call
            right = self._right.setdefault(call["path"].removeprefix(JOB), call["answer"])
            assert right == call["answer"], f"{call['path']} has two answers"

    def await_video(self, path: str) -> None:
        """Wait until a call for a video of this path is under way, and a job."""

        def under_way() -> bool:
            entries = [entry for entry in self._entries() if entry["path"] != SWAP]
            job = [entry for entry in entries if entry["path"].startswith(JOB)][-1]
            call = [entry for entry in entries if not entry["path"].startswith(JOB)][-1]
            begun = call["path"] == path and time.time() - call["begun"] > BEGUN_S
            return begun and "ended" not in call and "ended" not in job

        wait_until(under_way, 600, f"a video of {path} to begin")

    def outcome(self, since: float) -> Outcome:
        """Wait until the calls that were under way have ended, and say what happened since then."""
        now = time.time()
        wait_until(lambda: self._reached(now), 700, "the calls to end")
        later = [call for call in self.ended() if call["ended"] >= since]
        calls = [call for call in later if call["begun"] <= now]
        # Swaps that began after ``now`` count, too: a late answer to an early swap is no gap.
        times = sorted([since, *(call["ended"] for call in later if call["path"] == SWAP and call["status"] == 200)])
        return Outcome(
            calls=len(calls),
            jobs=sum(call["path"].startswith(JOB) for call in calls),
            failed=[call for call in calls if call["status"] != 200],
            wrong=[call for call in calls if call["status"] == 200 and call["answer"] != self._right_answer(call)],
            again=sum(call["attempts"] != "1" for call in calls),
            gap_s=max((after - before for before, after in pairwise(times)), default=now - since),
            slowest_s=max((call["ended"] - call["begun"] for call in calls), default=0.0),
        )

    def _right_answer(self, call: Json) -> str:
        return self._right[call["path"].removeprefix(JOB)]

    def _reached(self, moment: float) -> bool:
        """Whether all calls from before ``moment`` have ended, and a later swap has an answer."""
        entries = self._entries()
        early = Counter((entry["path"], entry["begun"]) for entry in entries if entry["begun"] <= moment)
        answered = any(e["path"] == SWAP and e["begun"] > moment and e.get("status") == 200 for e in entries)
        return answered and set(early.values()) <= {2}
