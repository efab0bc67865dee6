"""What is told of a job that has ended: how it ended, its metrics, and its line in the log."""

import logging
import time
from typing import Any

import pytest

from serve.config import Hardware
from serve.jobs.end_report import fault_of, outcome_of, report_end
from serve.jobs.store.record import Job
from serve.pipelines.meter import Meter
from serve.problems import Problem
from serve.telemetry import metrics
from tests.unit.recorded_metrics import recorded_metrics
from tests.unit.serve.jobs.job_builders import make_job, video

NOW = 1_790_000_000.0
LABELS = {"endpoint": "wan2.6", "model": "wan26"}


def ended_job(**fields: Any) -> Job:
    """Return a job that waited 2 seconds for its turn and succeeded 10 seconds after it came."""
    values = {"state": "succeeded", "created_at": NOW, "started_at": NOW + 2, "finished_at": NOW + 10, "attempt": 1}
    return make_job(video(), **values | fields)[0]


def failed_job(status: int, name: str = "internal", **fields: Any) -> Job:
    """Return a job that failed with a problem."""
    return ended_job(state="failed", problem=Problem(status, name, "why").record("the-id"), **fields)


def meter_of_a_swapped_video() -> Meter:
    """Return the times of an attempt in which two models worked."""
    meter = Meter({"wan26": Hardware(price_usd_per_hour=3.6), "face-swapper": Hardware(price_usd_per_hour=36)})
    meter.add_wait("wan26", 0.5, was_ready=True)
    meter.add_work("wan26", 4)
    meter.add_work("face-swapper", 2)
    meter.add_phase("encode", 1)
    meter.add_phase("denoise", 4)
    return meter


@pytest.mark.parametrize(
    ("job", "outcome", "is_fault"),
    [
        (ended_job(), "succeeded", False),
        (ended_job(state="cancelled"), "cancelled", False),
        (failed_job(422), "refused", False),
        (failed_job(504), "timeout", True),
        (failed_job(503), "busy", True),
        (failed_job(502), "failed", True),
        (ended_job(state="failed", problem=None), "failed", True),
    ],
    ids=["succeeded", "cancelled", "refused", "timeout", "busy", "failed", "without a problem"],
)
def test_an_end_has_one_name_which_tells_whose_fault_it_is(job: Job, outcome: str, is_fault: bool) -> None:
    assert outcome_of(job) == outcome
    assert fault_of(job) == (outcome if is_fault else None)


def test_a_success_counts_its_frames_its_stages_and_the_work_of_each_model() -> None:
    with recorded_metrics() as recorded:
        report_end(meter_of_a_swapped_video(), ended_job(), frames=9)
    assert recorded.values(metrics.JOBS_ENDED, **LABELS, outcome="succeeded") == [1]
    assert recorded.values(metrics.JOB_SECONDS, **LABELS) == [10]
    assert recorded.values(metrics.FRAMES, **LABELS) == [9]
    assert recorded.values(metrics.QUEUE_SECONDS, **LABELS) == [2.5]  # for a turn, and for a replica
    stages = {"queue": 2.5, "denoise": 4, "encode": 1}
    assert {stage: recorded.values(metrics.STAGE_SECONDS, **LABELS, stage=stage) for stage in stages} == {
        stage: [seconds] for stage, seconds in stages.items()
    }
    assert recorded.total(metrics.STAGE_SECONDS) == sum(stages.values())
    for model, seconds, price in (("wan26", 4, 0.004), ("face-swapper", 2, 0.02)):
        labels = {"endpoint": "wan2.6", "model": model}
        assert recorded.values(metrics.WORK_SECONDS, **labels) == [seconds]
        assert recorded.values(metrics.COST, **labels) == [pytest.approx(price)]


@pytest.mark.parametrize("job", [ended_job(state="cancelled"), failed_job(500)], ids=["cancelled", "failed"])
def test_what_did_not_succeed_counts_its_end_and_its_wait_and_no_work(job: Job) -> None:
    """Its caller does not pay for it, and its times would distort those of the others."""
    with recorded_metrics() as recorded:
        report_end(meter_of_a_swapped_video(), job)
    assert recorded.names() == {metrics.JOBS_ENDED.name, metrics.QUEUE_SECONDS.name}


def test_a_job_that_ended_before_its_turn_has_no_wait_and_no_time_is_negative() -> None:
    with recorded_metrics() as recorded:
        report_end(Meter({}), ended_job(started_at=None, finished_at=NOW - 0.01))
        assert recorded.values(metrics.JOB_SECONDS, **LABELS) == [0]
        report_end(Meter({}), ended_job(state="cancelled", started_at=None))
        report_end(Meter({}), ended_job(state="cancelled", started_at=NOW - 1))  # by another machine's clock
    assert recorded.values(metrics.QUEUE_SECONDS, **LABELS) == [0]
    assert recorded.total(metrics.JOBS_ENDED) == 3


@pytest.mark.parametrize("started", [[], ["wan26"], ["face-swapper"], ["wan26", "face-swapper"]])
def test_a_cold_start_is_that_of_the_model_which_started(started: list[str]) -> None:
    meter = Meter({"wan26": Hardware(), "face-swapper": Hardware()})
    for model in ("wan26", "face-swapper"):
        meter.add_wait(model, 3.0, was_ready=model not in started)
    job, _ = make_job(video(), state="succeeded", finished_at=time.time())
    with recorded_metrics() as recorded:
        report_end(meter, job, frames=9)
    for model in ("wan26", "face-swapper"):
        expected = [1] if model in started else []
        assert recorded.values(metrics.COLD_STARTS, endpoint="wan2.6", model=model) == expected


def test_the_line_of_a_job_says_how_it_ended_and_what_it_took(caplog: pytest.LogCaptureFixture) -> None:
    job = ended_job(attempt=2)
    with recorded_metrics(), caplog.at_level(logging.INFO, "ray.serve"):
        report_end(meter_of_a_swapped_video(), job, frames=9)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"job {job.id} of wan2.6 ended: succeeded after 10.00 s; queue 2.50 s, denoise 4.00 s, encode 1.00 s; "
        "9 frames, 0.024000 USD, attempt 2 (request id the-id)"
    )
    fields = {name: getattr(record, name) for name in ("caller", "model", "outcome", "frames", "attempt", "problem")}
    assert fields == {"caller": "ada", "model": "wan26", "outcome": "succeeded", "frames": 9, "attempt": 2, "problem": ""}
    assert record.__dict__["stages"] == {"queue": 2.5, "denoise": 4, "encode": 1}


def test_the_line_of_a_failed_job_names_its_problem_and_repeats_nothing_of_its_caller(
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = failed_job(422, "invalid-field", started_at=None, caller="ada\nforged", details={"prompt": "a garden"})
    with recorded_metrics(), caplog.at_level(logging.INFO, "ray.serve"):
        report_end(Meter({}), job)
    (message,) = caplog.messages
    assert message == (
        f"job {job.id} of wan2.6 ended: refused (invalid-field) after 10.00 s; "
        "0 frames, 0.000000 USD, attempt 1 (request id the-id)"
    )
