"""What a load test measures besides Locust's own times of requests, and its statistics."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from loadtest.histogram import Histogram

EVERY = "*"
"""Stands for all endpoints where a measure is asked for."""


@dataclass(frozen=True)
class Measure:
    """A quantity of the calls of one endpoint. ``unit`` is what its values are counted in."""

    name: str
    unit: str
    meaning: str


SECONDS = Measure("seconds", "s", "from a plain POST to the last byte of its answer")
FIRST_PROGRESS = Measure("first_progress", "s", "from making a job to the first news that its model works on it")
RESULT = Measure("result", "s", "from making a job to the last byte of its result")
FRAME_RATE = Measure("frame_rate", "frames/s", "frames of a result by the time that it took")
COST = Measure("cost", "USD", "price of a result, as the service states it")
CANCEL = Measure("cancel", "s", "from asking for the end of a job to the record that says so")
RETRY_AFTER = Measure("retry_after", "s", "what a refusal says about when to come back")
MEASURES = {m.name: m for m in (SECONDS, FIRST_PROGRESS, RESULT, FRAME_RATE, COST, CANCEL, RETRY_AFTER)}
"""Every measure by its name."""

STATISTICS = ("p50", "p95", "p99", "mean", "min", "max", "count")


def statistic(values: Histogram, name: str) -> float:
    """Return a statistic of ``values``; raise ValueError if it is unknown or there are none."""
    if name == "count":
        return float(values.count)
    if name not in STATISTICS:
        raise ValueError(f"unknown statistic `{name}`; there are {', '.join(STATISTICS)}")
    if not values.count:
        raise ValueError("there are no values")
    if name.startswith("p"):
        return values.quantile(int(name[1:]) / 100)
    return {"mean": values.mean, "min": values.least, "max": values.most}[name]


@dataclass
class Measures:
    """The values of all measures by the names of measure and endpoint, and the errors."""

    values: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    errors: dict[str, int] = field(default_factory=dict)
    """How often each unexpected error happened, by its text."""

    def add(self, measure: Measure, endpoint: str, value: float) -> None:
        """Count a value."""
        self.values.setdefault((measure.name, endpoint), Histogram()).add(value)

    def add_error(self, text: str) -> None:
        """Count an unexpected error."""
        self.errors[text] = self.errors.get(text, 0) + 1

    def of(self, measure: str, endpoint: str) -> Histogram:
        """Return the values of a measure; ``EVERY`` stands for all endpoints together."""
        found = Histogram()
        for (name, caller), values in self.values.items():
            if name == measure and endpoint in (EVERY, caller):
                found.merge(values)
        return found

    @property
    def error_count(self) -> int:
        """The number of unexpected errors."""
        return sum(self.errors.values())

    @property
    def answers(self) -> int:
        """The number of results, refusals and errors."""
        answered = (SECONDS.name, RESULT.name, RETRY_AFTER.name)
        return self.error_count + sum(values.count for (name, _), values in self.values.items() if name in answered)

    def merge(self, other: "Measures") -> None:
        """Count what ``other`` has counted as well."""
        for key, values in other.values.items():
            self.values.setdefault(key, Histogram()).merge(values)
        for text, count in other.errors.items():
            self.errors[text] = self.errors.get(text, 0) + count

    def take(self) -> "Measures":
        """Return what was counted since the last call of this method, and forget it."""
        taken = Measures(self.values, self.errors)
        self.values, self.errors = {}, {}
        return taken

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it."""
        values = [[*key, histogram.to_json()] for key, histogram in self.values.items()]
        return {"values": values, "errors": self.errors}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """Return what ``to_json`` wrote."""
        values = {(name, endpoint): Histogram.from_json(histogram) for name, endpoint, histogram in raw["values"]}
        return cls(values=values, errors=dict(raw["errors"]))
