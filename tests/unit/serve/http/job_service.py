"""The routes of jobs over jobs in memory, as the tests of ``serve.http`` call them."""

from typing import Any

from starlette.testclient import TestClient
from starlette.types import ASGIApp

from serve.http.callers.admission import Admission
from serve.http.callers.quotas import Quotas
from serve.http.jobs.handlers import JobHandlers
from serve.http.jobs.listeners import Listeners
from serve.http.jobs.submission import Submission
from serve.http.middleware import RequestBoundary
from serve.http.openai.videos import OpenAIVideos, Submit
from serve.http.routes import job_routes, make_router
from serve.jobs.store.record import Job
from tests.unit.serve.http.service import kept_endpoints, make_config
from tests.unit.serve.jobs.fake_jobs import NOW, FakeJobs

RESULT = bytes(range(256)) * 20
"""The result of a job."""


def make_handlers(jobs: FakeJobs, **settings: Any) -> JobHandlers:
    """Return the handlers over ``jobs``; ``settings`` replaces any of their arguments."""
    defaults: dict[str, Any] = {"max_wait_s": 600, "listeners": Listeners(limit=10, limit_of_one=5)}
    # The fake has what the handlers need of a desk and of a store, but not all of a store.
    return JobHandlers(desk=jobs, store=jobs, files=jobs.files, **{**defaults, **settings})  # type: ignore[arg-type]


async def accept_nothing(_: Submission) -> Job:
    """Take the place of what makes jobs of requests, in tests that send none."""
    raise NotImplementedError


def make_videos(jobs: FakeJobs, *, submit: Submit = accept_nothing, per_minute: int | None = None) -> OpenAIVideos:
    """Return the handlers of OpenAI's videos API over ``jobs``."""
    return OpenAIVideos(
        endpoints=kept_endpoints(make_config()),
        submit=submit,
        desk=jobs,  # type: ignore[arg-type]
        store=jobs,  # type: ignore[arg-type]
        files=jobs.files,
        jobs=make_handlers(jobs),
        quotas=Quotas(jobs, per_minute=per_minute, now=lambda: NOW),  # type: ignore[arg-type]
        admission=Admission(100),
        timeout_s=1800,
        now=lambda: NOW,
    )


def make_job_service(jobs: FakeJobs, **settings: Any) -> ASGIApp:
    """Return an application that has the routes of jobs."""
    return RequestBoundary(make_router(job_routes(make_handlers(jobs, **settings))))


def make_job_client(jobs: FakeJobs, **settings: Any) -> TestClient:
    """Return a client of such an application."""
    return TestClient(make_job_service(jobs, **settings), follow_redirects=False)


def slug(response: Any) -> str:
    """Return the last part of the type of the problem that a response is."""
    assert response.headers["content-type"] == "application/problem+json"
    return str(response.json()["type"]).rpartition(":")[2]
