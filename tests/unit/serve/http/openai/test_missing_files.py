"""A request for a file that is not there is one prompt error for `openai`'s users."""

from typing import Any

import openai
import pytest
from starlette.testclient import TestClient

from serve.jobs.store.record import Progress
from tests.unit.serve.http.openai.videos_service import run
from tests.unit.serve.jobs.fake_jobs import FakeJobs, make_job, stored

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

LOST = {"type": "urn:ryla:problem:replica-lost", "detail": "the replica died"}


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"state": "queued"}, openai.ConflictError, "the video is queued, 0 % done: ask for the file once"),
        ({"state": "starting"}, openai.ConflictError, "the video is queued, 0 % done"),
        ({"state": "running", "progress": Progress(percent=40.6)}, openai.ConflictError, "is in_progress, 40 % done"),
        ({"state": "failed", "problem": LOST}, openai.ConflictError, "has failed, so it has no file: the replica died"),
        ({"state": "cancelled"}, openai.ConflictError, "has no file: the job was cancelled"),
        (None, openai.APIStatusError, "was deleted, or has expired"),
        ({"state": "succeeded", "result": stored(b"", "gone")}, openai.APIStatusError, "is no longer kept"),
    ],
)
def test_a_file_that_is_not_there_is_one_prompt_error(
    http: TestClient, jobs: FakeJobs, change: dict[str, Any] | None, error: type[openai.APIStatusError], says: str
) -> None:
    """The package repeats a request twice after a 409 unless it is told not to."""
    job = jobs.add(make_job(details={"model": "wan2.6"}))
    if change is None:
        run(http, jobs.delete, job.id, "testclient")
    else:
        run(http, jobs.change, job.id, **change)
    sent: list[str] = []
    http.event_hooks = {"request": [lambda request: sent.append(request.url.path)]}
    client = openai.OpenAI(base_url="http://testserver/v1", api_key="any", http_client=http)
    assert client.max_retries > 0
    with pytest.raises(error, match=says) as refused:
        client.videos.download_content(job.id)
    assert sent == [f"/v1/videos/{job.id}/content"]
    assert refused.value.status_code == (409 if error is openai.ConflictError else 410)
    ended = change is None or change["state"] in ("failed", "cancelled", "succeeded")
    assert ("retry-after" in refused.value.response.headers) is not ended
