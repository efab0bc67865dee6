"""How much of a job is done and how long the rest takes, from its own steps and earlier jobs."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve.jobs.forecasts.pace import GUESSES, Work

OWN_INTERVALS = 2
"""The intervals between steps of a stage after which they predict more than earlier jobs."""
UNLIKE = 3.0
"""How many times longer than others a first step takes that waits for something: jobs that come
later will not wait for it again."""


@dataclass
class _Stage:
    """How far a stage is: the first and the latest step, each as a time and a share from 0 to 1."""

    began: float
    first: tuple[float, float] | None = None
    latest: tuple[float, float] | None = None
    intervals: int = 0

    def reach(self, share: float, now: float) -> None:
        """Note that ``share`` of the stage is done."""
        if self.first is None:
            self.first = now, share
        else:
            self.intervals += 1
        self.latest = now, share

    @property
    def share(self) -> float:
        """The share of the stage that is done."""
        return 0.0 if self.latest is None else self.latest[1]

    def rate_s(self) -> float | None:
        """Return how long the whole stage would take at the pace of its steps; None before them.

        The first step is left out where there are others: it waits for compilation, for memory and
        for the stages before.
        """
        if self.first is None or self.latest is None:
            return None
        (start, before), (end, after) = self.first, self.latest
        if after > before:
            return (end - start) / (after - before)
        return (end - self.began) / after if after > 0 else None

    def total_s(self, now: float) -> float:
        """Return how long the stage has taken, with its first step only if that was like others."""
        rate_s = self.rate_s()
        if self.first is None or self.latest is None or rate_s is None:
            return now - self.began
        others_s = (self.latest[0] - self.first[0]) / max(1, self.intervals)
        if self.intervals and self.first[0] - self.began > UNLIKE * others_s:
            return rate_s
        return self.latest[0] - self.began


class Estimate:
    """Follows the stages of one attempt, which come one after the other.

    ``known`` has the seconds that a unit of each stage took in earlier jobs. Times are by any clock
    that does not go back.
    """

    def __init__(self, work: Work, known: Mapping[str, float | None], began: float) -> None:
        self._units = work.units
        self._known = {stage: pace * work.units[stage] for stage, pace in known.items() if pace is not None}
        self._stages: dict[str, _Stage] = {}
        self._began = began

    def begin(self, now: float) -> None:
        """Begin: the time before was not work."""
        self._began = now

    def reach(self, stage: str, share: float, now: float) -> None:
        """Note that ``share`` of ``stage`` is done, from 0 to 1."""
        if stage not in self._stages:
            self._stages[stage] = _Stage(began=self._began)
        self._stages[stage].reach(share, now)
        if share >= 1:
            self._began = now  # the next stage begins

    def done(self) -> float:
        """Return the share of the whole job that is done, by the time of earlier jobs."""
        weights = {stage: self._expected_s(stage, None) for stage in self._units}
        total = sum(weights.values())
        shares = {stage: self._stages[stage].share for stage in self._units if stage in self._stages}
        return sum(weights[stage] * share for stage, share in shares.items()) / total if total else 0.0

    def left_s(self) -> float | None:
        """Return the seconds until the last stage ends; None before the first step."""
        current = next((stage for stage in reversed(list(self._units)) if stage in self._stages), None)
        whole_s = None if current is None else self._whole_s(current)
        if current is None or whole_s is None:
            return None
        stages = list(self._units)
        later = stages[stages.index(current) + 1 :]
        return (1 - self._stages[current].share) * whole_s + sum(self._expected_s(stage, (current, whole_s)) for stage in later)

    def measured_s(self, stage: str, now: float) -> float:
        """Return how long a stage took that has ended."""
        return self._stages[stage].total_s(now) if stage in self._stages else now - self._began

    def _whole_s(self, stage: str) -> float | None:
        """Return how long the present stage takes, by its own steps or by earlier jobs."""
        reached = self._stages[stage]
        if reached.intervals >= OWN_INTERVALS or stage not in self._known:
            return reached.rate_s()
        return self._known[stage]

    def _expected_s(self, stage: str, current: tuple[str, float] | None) -> float:
        """Return how long a stage will take that has not begun.

        ``current`` is the present stage with its time. Where it is slower than in earlier jobs, so
        will this one be. Without ``current`` only the proportions of stages have a meaning.
        """
        reference, whole_s = current or (next(iter(self._known), stage), None)
        if whole_s is None:
            whole_s = self._known.get(reference, GUESSES[reference] * self._units[reference])
        if stage in self._known:
            return self._known[stage] * (whole_s / self._known[reference] if reference in self._known else 1)
        guess = GUESSES[stage] * self._units[stage] / (GUESSES[reference] * self._units[reference])
        return guess * whole_s
