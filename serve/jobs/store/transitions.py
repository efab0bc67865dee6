"""What each change makes of a job. Both stores apply these functions, each in its own transaction.

They return None where the change is refused, because the attempt is not the latest or the job has
ended.
"""

from collections.abc import Sequence
from dataclasses import replace

from serve.jobs.store.record import Job, Progress, State, StoredResult


def taken(job: Job, owner: str, known_beat: int | None) -> Job | None:
    """Return the job as a new attempt of ``owner``, queued again."""
    if job.ended or (job.owner and job.beat != known_beat):
        return None
    return replace(
        job, owner=owner, attempt=job.attempt + 1, beat=job.beat + 1, state="queued", progress=Progress(), started_at=None
    )


def started(job: Job, at: float) -> Job:
    """Return a queued job after its turn has come."""
    starting = replace(job.progress, stage="starting")
    return replace(job, state="starting", progress=starting, started_at=at, begun=job.begun + 1)


def progressed(job: Job, attempt: int, steps: Sequence[Progress]) -> list[Job] | None:
    """Return the job after each of ``steps``."""
    if job.ended or job.attempt != attempt:
        return None
    jobs: list[Job] = []
    for step in steps:
        after = job.with_progress(step)
        if after.state == "queued" != job.state:  # its turn has come: only a new attempt waits again
            after = replace(after, state="starting")
        jobs.append(job := after)
    return jobs


def finished(
    job: Job,
    attempt: int,
    *,
    state: State,
    at: float,
    expires_at: float,
    result: StoredResult | None,
    problem: dict[str, object] | None,
) -> Job | None:
    """Return the ended job, which nobody owns any more."""
    if job.ended or job.attempt != attempt:
        return None
    return replace(job, state=state, owner="", finished_at=at, expires_at=expires_at, result=result, problem=problem)


def cancelled(job: Job, *, at: float, expires_at: float) -> Job:
    """Return the job cancelled if it is queued, else asking its owner for that."""
    if job.ended:
        return job
    if job.state == "queued":
        return replace(job, state="cancelled", owner="", cancel_requested=True, finished_at=at, expires_at=expires_at)
    return replace(job, cancel_requested=True)


def replaced(stored: Job, job: Job, expected: Job) -> Job | None:
    """Return ``job`` if the stored one has ended and still equals ``expected``."""
    return job if stored.ended and job.ended and stored == expected and stored.id == job.id else None


def seconds_taken(before: Job, after: Job) -> float | None:
    """Return how long a job took that has just succeeded, from its start; None for any other."""
    if before.ended or after.state != "succeeded" or after.started_at is None or after.finished_at is None:
        return None
    return max(0.0, after.finished_at - after.started_at)


def webhook_due_at(job: Job) -> float | None:
    """Return from when on the webhook of an ended job is to be sent, or None if it is not."""
    if not job.ended or job.webhook is None or job.webhook.state != "pending":
        return None
    return 0.0 if job.webhook.next_at is None else job.webhook.next_at


def differences(earlier: Job, job: Job) -> list[str]:
    """Return in what two jobs of one idempotency key differ, in the words of callers."""
    pairs = {
        "path": ((earlier.endpoint, earlier.details is None), (job.endpoint, job.details is None)),
        "`Accept`": (earlier.media_type, job.media_type),
        "`Webhook-Url`": (_webhook_url(earlier), _webhook_url(job)),
    }
    differs = [name for name, (before, now) in pairs.items() if before != now]
    if not differs and earlier.fingerprint != job.fingerprint:
        return ["body"]
    return differs


def _webhook_url(job: Job) -> str | None:
    return None if job.webhook is None else job.webhook.url


def replays(earlier: Job, now: float) -> bool:
    """Return whether a request with the idempotency key of ``earlier`` stands for that job."""
    return earlier.state != "failed" and not earlier.has_expired(now)
