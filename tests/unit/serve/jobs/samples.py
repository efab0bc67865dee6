"""Jobs as the tests of the stores make them, and what they do with one in a store."""

from typing import Any

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.record import Job, State, StoredResult, new_job_id

NOW = 1_000_000.0
RESULT = StoredResult(key="results/1", media_type="video/mp4", size=3, etag='"e"', headers={"X-Seed": "7"})


def new_job(**fields: Any) -> Job:
    """Return a job that nobody has taken yet."""
    values: dict[str, Any] = {
        "id": new_job_id(), "caller": "ann", "endpoint": "/wan26/t2v", "slot": "wan26", "request_id": "r", "media_type": "video/mp4",
        "created_at": NOW, "deadline_at": NOW + 1800, "expires_at": NOW + 86400,
    }  # fmt: skip
    return Job(**values | fields)


async def create(store: JobStore, job: Job | None = None, **fields: object) -> Job:
    """Add a job."""
    return await store.create(job or new_job(**fields), max_queued=100)


async def run(store: JobStore, job: Job, owner: str = "runner") -> Job:
    """Take a job and start it, whatever else runs."""
    assert await store.take(owner, job.id)
    await store.start(owner, slots={job.slot: 100}, max_running=100)
    started = await store.get(job.id)
    assert started is not None
    assert started.state == "starting"
    return started


async def end(store: JobStore, job: Job, state: State = "succeeded", expires_at: float = NOW + 10) -> Job:
    """Finish a job's latest attempt."""
    latest = await store.get(job.id)
    assert latest is not None
    ended = await store.finish(job.id, latest.attempt, state=state, at=NOW + 5, expires_at=expires_at)
    assert ended is not None
    return ended
