"""Metrics as they are declared: a name, a meaning, and labels with a fixed set of values.

They are exported by Ray, through ``ray.util.metrics``: each node's agent offers those of all
processes of the node to Prometheus. Ray puts `ray_` before each name.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

from ray import serve
from ray.serve.exceptions import RayServeException
from ray.util import metrics

PREFIX = "ray_"
"""What Ray puts before the name of every metric."""
APPLICATION = "application"
"""The label that every metric has: the name of the Serve application."""
OTHER = "other"
"""What a label says in place of a value that it cannot have."""

MINUTES = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0)
"""Buckets for what takes from a fraction of a second to an hour, in seconds."""

_lock = threading.Lock()


@dataclass(frozen=True)
class Label:
    """A label, and every value that it may have. Any other becomes ``OTHER``."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """One row of a table of metrics. ``name`` is the exported one without ``PREFIX``."""

    name: str
    description: str
    labels: tuple[Label, ...] = ()
    unit: str = ""
    only: str = ""
    """When the metric has values, if it does not have them in every installation."""
    kind: ClassVar[str]

    @property
    def exported(self) -> str:
        """The name under which Prometheus finds the metric."""
        return PREFIX + self.name

    def tags(self, labels: Mapping[str, str]) -> dict[str, str]:
        """Return the labels as they are exported. Raise TypeError unless they are the metric's."""
        if len(labels) != len(self.labels) or any(label.name not in labels for label in self.labels):
            raise TypeError(f"{self.name} has the labels {[label.name for label in self.labels]}, not {list(labels)}")
        known = {label.name: labels[label.name] if labels[label.name] in label.values else OTHER for label in self.labels}
        return {**known, APPLICATION: _application()}

    def _tag_keys(self) -> tuple[str, ...]:
        return (*(label.name for label in self.labels), APPLICATION)


@dataclass(frozen=True, kw_only=True, eq=False)
class Counter(Metric):
    """A number that only grows; its name ends in `_total`."""

    kind: ClassVar[str] = "counter"

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add ``amount``, which is 0 or more."""
        tags = self.tags(labels)
        if amount > 0:
            _instrument(self).inc(amount, tags)

    def make(self) -> metrics.Counter:
        """Return Ray's instrument, which adds `_total` to the name itself."""
        return metrics.Counter(self.name.removesuffix("_total"), self.description, self._tag_keys())


@dataclass(frozen=True, kw_only=True, eq=False)
class Gauge(Metric):
    """A number that rises and falls."""

    kind: ClassVar[str] = "gauge"

    def set(self, value: float, **labels: str) -> None:
        """Replace the value of this process."""
        _instrument(self).set(value, self.tags(labels))

    def make(self) -> metrics.Gauge:
        """Return Ray's instrument."""
        return metrics.Gauge(self.name, self.description, self._tag_keys())


@dataclass(frozen=True, kw_only=True, eq=False)
class Histogram(Metric):
    """How often a number was in each of ``buckets``, which are upper bounds.

    Ray adds up the middles of the buckets for `_sum`, so only a counter tells an exact total.
    """

    kind: ClassVar[str] = "histogram"
    buckets: tuple[float, ...] = MINUTES

    def observe(self, value: float, **labels: str) -> None:
        """Count one value."""
        _instrument(self).observe(value, self.tags(labels))

    def make(self) -> metrics.Histogram:
        """Return Ray's instrument."""
        return metrics.Histogram(self.name, self.description, list(self.buckets), self._tag_keys())


def _instrument(metric: Counter | Gauge | Histogram) -> Any:
    """Return Ray's instrument of a metric, which is made at its first use."""
    with _lock:
        return _make(metric)


@cache
def _make(metric: Counter | Gauge | Histogram) -> Any:
    return metric.make()


@cache
def _application() -> str:
    """Return the name of the application that this process is a replica of, or nothing."""
    try:
        return serve.get_replica_context().app_name
    except RayServeException:
        return ""
