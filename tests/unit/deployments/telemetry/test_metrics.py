"""The table of the metrics of the deployments is complete, and each is bounded by itself."""

import math

import pytest

from deployments.telemetry import metrics
from deployments.telemetry.metric import OTHER, Counter, Gauge, Histogram
from deployments.telemetry.metrics import GPU, METRICS, MODEL

MAX_SERIES = 100
"""The most series that one metric may have in one replica, buckets not counted."""


def test_every_metric_that_is_declared_is_in_the_table_once() -> None:
    declared = [value for value in vars(metrics).values() if isinstance(value, Counter | Gauge | Histogram)]
    assert set(declared) == set(METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS) == len(declared)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_its_series_are_few_whatever_its_labels_say(metric: Counter | Gauge | Histogram) -> None:
    assert math.prod(len(label.values) + 1 for label in metric.labels) <= MAX_SERIES
    odd = metric.tags({label.name: "a caller's text" for label in metric.labels})
    assert {odd[label.name] for label in metric.labels} <= {OTHER}


def test_only_the_metrics_of_models_name_one() -> None:
    without = {metric.name for metric in METRICS if MODEL not in metric.labels}
    assert without == {"ryla_faces_found_total", "ryla_faces_swapped_total"}, "only one model finds faces"


def test_a_replica_of_the_largest_machine_has_a_label_for_each_gpu() -> None:
    assert GPU.values[:8] == tuple("01234567")
    assert len(set(GPU.values)) == len(GPU.values) == 16
