"""Metrics without Ray's exporter: keeps what was recorded, by metric and labels."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from deployments.telemetry import metric as declared
from deployments.telemetry.metric import Metric

Labels = tuple[tuple[str, str], ...]


class RecordedMetrics:
    """All values that were recorded, in order."""

    def __init__(self) -> None:
        self._values: dict[str, dict[Labels, list[float]]] = defaultdict(lambda: defaultdict(list))

    def values(self, metric: Metric, **labels: str) -> list[float]:
        """Return what was recorded with exactly these labels."""
        return self._values[metric.name][_key(labels)]

    def total(self, metric: Metric, **labels: str) -> float:
        """Return the sum of what was recorded with these labels, whatever the others are."""
        found = [values for key, values in self._values[metric.name].items() if set(labels.items()) <= set(key)]
        return sum(sum(values) for values in found)

    def names(self) -> set[str]:
        """Return the names of the metrics that have values."""
        return {name for name, found in self._values.items() if found}

    def add(self, metric: Metric, value: float, tags: dict[str, str]) -> None:
        """Keep one value."""
        labels = {name: text for name, text in tags.items() if name != declared.APPLICATION}
        self._values[metric.name][_key(labels)].append(value)


class _Instrument:
    """Stands in for Ray's instrument of a metric."""

    def __init__(self, metric: Metric, recorded: RecordedMetrics) -> None:
        self._metric = metric
        self._recorded = recorded

    def inc(self, value: float, tags: dict[str, str]) -> None:
        """Keep what a counter is increased by; Ray refuses 0 and less."""
        assert value > 0
        self._recorded.add(self._metric, value, tags)

    def set(self, value: float, tags: dict[str, str]) -> None:
        """Keep a gauge's value."""
        self._recorded.add(self._metric, value, tags)

    def observe(self, value: float, tags: dict[str, str]) -> None:
        """Keep a value of a histogram."""
        self._recorded.add(self._metric, value, tags)


@contextmanager
def recorded_metrics() -> Iterator[RecordedMetrics]:
    """Record metrics in this process instead of exporting them."""
    recorded = RecordedMetrics()
    with patch.object(declared, "_instrument", lambda metric: _Instrument(metric, recorded)):
        yield recorded


def _key(labels: dict[str, str]) -> Labels:
    return tuple(sorted(labels.items()))
