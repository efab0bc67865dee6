"""What is counted of a request to an endpoint: once, by what became of it."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from deployments.errors import PromptTooLong
from serve.http.reports import request_report
from serve.http.reports.request_report import reported
from serve.problems import Problem, unavailable
from serve.telemetry import metrics
from tests.unit.recorded_metrics import RecordedMetrics, recorded_metrics

NAME = "wan2.6"


@pytest.fixture
def recorded() -> Iterator[RecordedMetrics]:
    with recorded_metrics() as recorded:
        yield recorded


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, "succeeded"),
        (202, "accepted"),
        (303, "accepted"),
        (422, "refused"),
        (429, "busy"),
        (503, "busy"),
        (504, "timeout"),
    ],
)
def test_an_answer_is_counted_by_its_status(recorded: RecordedMetrics, status: int, outcome: str) -> None:
    answer = Response(status_code=status)
    with reported(NAME) as report:
        assert report.answered(answer) is answer
        assert recorded.names() == set(), "it is counted at its end"
    assert recorded.values(metrics.REQUESTS, endpoint=NAME, outcome=outcome) == [1]
    assert recorded.total(metrics.REQUESTS) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (PromptTooLong("prompt", "is too long"), "refused"),
        (unavailable("asleep", 5), "busy"),
        (Problem(499, "client-left", "left"), "left"),
        (ClientDisconnect(), "left"),
        (asyncio.CancelledError(), "left"),
        (TimeoutError(), "timeout"),
        (RuntimeError("a fault"), "failed"),
        (KeyboardInterrupt(), "failed"),
    ],
    ids=repr,
)
def test_an_error_is_counted_by_whose_fault_it_is_and_goes_on(
    recorded: RecordedMetrics, error: BaseException, outcome: str
) -> None:
    def answer() -> None:
        with reported(NAME) as report:
            report.answered(Response())  # an answer that could not be sent is no success
            raise error

    with pytest.raises(type(error)) as raised:
        answer()
    assert raised.value is error
    assert recorded.values(metrics.REQUESTS, endpoint=NAME, outcome=outcome) == [1]
    assert recorded.total(metrics.REQUESTS) == 1
    assert len(recorded.values(metrics.REQUEST_SECONDS, endpoint=NAME)) == 1


def test_a_block_that_answers_nothing_has_failed(recorded: RecordedMetrics) -> None:
    with reported(NAME):
        pass
    assert recorded.values(metrics.REQUESTS, endpoint=NAME, outcome="failed") == [1]


def test_the_endpoint_may_become_known_later_and_another_name_is_not_a_label(
    recorded: RecordedMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=10.0)
    monkeypatch.setattr(request_report, "time", SimpleNamespace(monotonic=lambda: clock.now))
    with reported() as report:
        report.endpoint = "wan22-i2v"
        clock.now += 2.5
        report.answered(Response())
    with reported() as report:
        report.endpoint = "a model that nobody has"
        report.answered(Response(status_code=422))
    assert recorded.values(metrics.REQUEST_SECONDS, endpoint="wan22-i2v") == [2.5]
    assert recorded.values(metrics.REQUESTS, endpoint="wan22-i2v", outcome="succeeded") == [1]
    assert recorded.values(metrics.REQUESTS, endpoint="other", outcome="refused") == [1]
