"""The table of metrics: names by Prometheus' conventions, bounded labels, buckets for minutes."""

import math
import re
from typing import get_args

import pytest

from deployments.telemetry import metrics as replicas
from deployments.telemetry.metric import Counter, Gauge, Histogram
from deployments.telemetry.metrics import CACHE_RESULT, GPU, MODEL
from serve.config import AppConfig
from serve.http.endpoints import make_endpoints
from serve.models import MODELS
from serve.pipelines.meter import PHASES
from serve.telemetry import metrics
from serve.telemetry.metrics import (
    DELIVERY,
    ENDPOINT,
    LAYER,
    METRICS,
    OUTCOME,
    OUTCOMES,
    STAGE,
    STATE,
    Layer,
    Outcome,
    outcome_of_status,
    record_certificate_expiry,
    record_provenance_failure,
)
from tests.unit.docs.markdown import read, rows
from tests.unit.recorded_metrics import recorded_metrics

MAX_SERIES = 400
"""The most series that one metric may have in one process, buckets not counted."""


def test_the_labels_have_exactly_these_values() -> None:
    assert {label for metric in METRICS for label in metric.labels} == {
        CACHE_RESULT, DELIVERY, ENDPOINT, GPU, LAYER, MODEL, OUTCOME, STAGE, STATE,
    }  # fmt: skip
    assert ENDPOINT.values == tuple(endpoint.name for endpoint in make_endpoints(AppConfig()))
    assert MODEL.values == tuple(model.name for model in MODELS)
    assert STAGE.values == PHASES
    assert OUTCOME.values == get_args(Outcome) == OUTCOMES
    assert LAYER.values == get_args(Layer)
    assert STATE.values == ("queued", "starting", "running")
    assert DELIVERY.values == ("delivered", "repeated", "failed")
    assert CACHE_RESULT.values == ("hit", "miss")
    assert len(GPU.values) == 16


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_is_named_described_and_bounded(metric: Counter | Gauge | Histogram) -> None:
    assert re.fullmatch(r"ryla(_[a-z]+)+", metric.name)
    assert metric.name.endswith("_total") == isinstance(metric, Counter)
    assert metric.description.endswith(".")
    if metric.unit:
        assert metric.unit.lower() in metric.name
    assert math.prod(len(label.values) + 1 for label in metric.labels) <= MAX_SERIES
    if isinstance(metric, Histogram):
        assert list(metric.buckets) == sorted(set(metric.buckets))
        assert metric.unit == "seconds"
        assert metric.buckets[-1] >= 120, "a video takes minutes"


def test_names_are_unique_and_every_metric_is_in_the_table() -> None:
    declared = {
        value
        for module in (metrics, replicas)
        for value in vars(module).values()
        if isinstance(value, Counter | Gauge | Histogram)
    }
    assert declared == set(METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_operations_lists_every_metric_and_no_other() -> None:
    documented = {name: (kind, labels, text) for name, kind, labels, text in rows(read("docs/operations.md"), "Metrics")}
    expected = {}
    for metric in METRICS:
        labels = ", ".join(f"`{label.name}`" for label in metric.labels) or "-"
        text = f"{metric.description[:-1]}; only {metric.only}." if metric.only else metric.description
        expected[f"`{metric.exported}`"] = (metric.kind, labels, text)
    assert documented == expected


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "succeeded"), (202, "accepted"), (303, "accepted"), (422, "refused"), (413, "refused"), (429, "busy"),
        (499, "left"), (503, "busy"), (504, "timeout"), (500, "failed"), (502, "failed"), (409, "refused"),
    ],
)  # fmt: skip
def test_a_status_is_an_outcome(status: int, outcome: Outcome) -> None:
    assert outcome_of_status(status) == outcome


def test_provenance_is_recorded_by_its_layer() -> None:
    with recorded_metrics() as recorded:
        for layer in get_args(Layer):
            record_provenance_failure(layer)
        record_certificate_expiry(1_800_000_000.0)
    assert [recorded.values(metrics.PROVENANCE_FAILURES, layer=layer) for layer in get_args(Layer)] == [[1], [1], [1]]
    assert recorded.values(metrics.CERTIFICATE_EXPIRY) == [1_800_000_000.0]
