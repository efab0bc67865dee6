"""/v1/videos over jobs in memory."""

import base64
from dataclasses import dataclass, field
from typing import Any

from starlette.testclient import TestClient

from serve.http.endpoints import Endpoint, make_endpoints
from serve.http.jobs.submission import Submission
from serve.http.middleware import RequestBoundary
from serve.http.openai.errors import OpenAIErrors
from serve.http.routes import make_router, openai_routes
from serve.http.schemas import Parsed
from serve.jobs.store.record import Job
from tests.unit.serve.http.job_service import make_videos
from tests.unit.serve.http.service import FACE, make_config
from tests.unit.serve.jobs.fake_jobs import NOW, FakeJobs, make_job

ENDPOINTS = {endpoint.name: endpoint for endpoint in make_endpoints(make_config())}
IMAGE = base64.b64decode(FACE.partition(",")[2])


@dataclass
class Accepted:
    """Accepts orders as the ingress does: by the real schemas, as jobs in memory."""

    jobs: FakeJobs
    parsed: list[tuple[Endpoint, Parsed]] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)

    async def __call__(self, submission: Submission) -> Job:
        self.submissions.append(submission)
        endpoint, preferences = ENDPOINTS[submission.endpoint], submission.preferences
        self.parsed.append((endpoint, endpoint.schema.parse(submission.fields, strict=preferences.strict)))
        made = make_job(
            endpoint=submission.endpoint,
            created_at=NOW + len(self.parsed),
            caller=submission.caller,
            request_id=submission.request_id,
            media_type=submission.media_type,
            idempotency_key=preferences.idempotency_key,
            details=dict(submission.details),
        )
        return await self.jobs.accept(made, b"")

    @property
    def last(self) -> Any:
        """The latest request, as its pipeline gets it."""
        return self.parsed[-1][1].request


def make_http(jobs: FakeJobs, accepted: Accepted, per_minute: int | None = None) -> TestClient:
    videos = make_videos(jobs, submit=accepted, per_minute=per_minute)
    return TestClient(OpenAIErrors(RequestBoundary(make_router(openai_routes(videos)))))


def run(http: TestClient, call: Any, *args: Any, **named: Any) -> Any:
    """Call an async method of the jobs in the loop in which the application runs."""
    assert http.portal is not None

    async def work() -> Any:
        return await call(*args, **named)

    return http.portal.call(work)
