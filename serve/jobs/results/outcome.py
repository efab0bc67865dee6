"""How a job ended, as the caller that waits for it learns it."""

from dataclasses import dataclass

from serve.jobs.store.record import Job


@dataclass(frozen=True)
class Outcome:
    """An ended job, and its result if it was asked for and the job has succeeded."""

    job: Job
    data: bytes | None = None
