"""The report on a job that has ended: its metrics, and one line in the log."""

import logging
from collections.abc import Mapping
from typing import Any

from serve.jobs.slots import model_of
from serve.jobs.store.record import Job
from serve.pipelines.meter import PHASES, Meter
from serve.telemetry import metrics
from serve.telemetry.metrics import Outcome, outcome_of_status

logger = logging.getLogger("ray.serve")


def outcome_of(job: Job) -> Outcome:
    """Return how an ended job ended, as metrics and spans name it."""
    if job.state == "succeeded" or job.state == "cancelled":
        return job.state
    return outcome_of_status(500 if job.problem is None else job.problem["status"])


def fault_of(job: Job) -> Outcome | None:
    """Return how an ended job ended, if that is the service's fault, else None."""
    outcome = outcome_of(job)
    return outcome if outcome in ("failed", "timeout", "busy") else None


def report_end(meter: Meter, ended: Job, *, frames: int = 0) -> None:
    """Record the end of a job. ``meter`` is that of its last attempt; ``frames`` has its result."""
    outcome = outcome_of(ended)
    labels = {"endpoint": ended.endpoint, "model": model_of(ended.slot)}
    stages = _stages(meter, ended)
    # The two times may be of two machines, whose clocks differ a little.
    seconds = max(0.0, (ended.finished_at or ended.created_at) - ended.created_at)
    metrics.JOBS_ENDED.add(1, **labels, outcome=outcome)
    if "queue" in stages:
        metrics.QUEUE_SECONDS.observe(stages["queue"], **labels)
    for model in meter.started:
        metrics.COLD_STARTS.add(1, endpoint=ended.endpoint, model=model)
    if outcome == "succeeded":
        metrics.JOB_SECONDS.observe(seconds, **labels)
        metrics.FRAMES.add(frames, **labels)
        for stage, duration in stages.items():
            metrics.STAGE_SECONDS.observe(duration, **labels, stage=stage)
        for model, worked in meter.seconds.items():
            metrics.WORK_SECONDS.add(worked, endpoint=ended.endpoint, model=model)
            metrics.COST.add(meter.cost_of(model), endpoint=ended.endpoint, model=model)
    fields = {
        "endpoint": ended.endpoint,
        "caller": ended.caller,
        "model": labels["model"],
        "outcome": outcome,
        "seconds": round(seconds, 3),
        "stages": {stage: round(duration, 3) for stage, duration in stages.items()},
        "frames": frames,
        "cost_usd": round(meter.cost_usd, 6),
        "attempt": ended.attempt,
        "problem": "" if ended.problem is None else str(ended.problem["type"]).rpartition(":")[2],
    }
    logger.info("%s", _sentence(ended, fields), extra=fields)


def _stages(meter: Meter, ended: Job) -> dict[str, float]:
    """Return the seconds of each stage that the last attempt reached, in the order of the stages.

    The queue is the wait for a turn, and then for a free replica.
    """
    phases = dict(meter.phases)
    if ended.started_at is not None:
        phases["queue"] = phases.get("queue", 0.0) + max(0.0, ended.started_at - ended.created_at)
    return {name: phases[name] for name in PHASES if name in phases}


def _sentence(job: Job, fields: Mapping[str, Any]) -> str:
    """Return the line of an ended job. Nothing in it was chosen by a caller."""
    why = f" ({fields['problem']})" if fields["problem"] else ""
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in fields["stages"].items())
    parts = [
        f"job {job.id} of {job.endpoint} ended: {fields['outcome']}{why} after {fields['seconds']:.2f} s",
        *([stages] if stages else []),
        f"{fields['frames']} frames, {fields['cost_usd']:.6f} USD, attempt {job.attempt} (request id {job.request_id})",
    ]
    return "; ".join(parts)
