"""Jobs as the tests of the stores make them."""

from typing import Any

from serve.jobs.store.record import Job, StoredResult, new_job_id

NOW = 1_000_000.0
RESULT = StoredResult(key="results/1", media_type="video/mp4", size=3, etag='"e"', headers={"X-Seed": "7"})


def new_job(**fields: Any) -> Job:
    """Return a job that nobody has taken yet."""
    values: dict[str, Any] = {
        "id": new_job_id(), "caller": "ann", "endpoint": "/wan26/t2v", "slot": "wan26", "request_id": "r", "media_type": "video/mp4",
        "created_at": NOW, "deadline_at": NOW + 1800, "expires_at": NOW + 86400,
    }  # fmt: skip
    return Job(**values | fields)
