"""Jobs in memory, and a client of the routes over them."""

import pytest
from starlette.testclient import TestClient

from tests.unit.serve.http.job_service import make_job_client
from tests.unit.serve.jobs.fake_jobs import FakeJobs


@pytest.fixture
def jobs() -> FakeJobs:
    """No job yet."""
    return FakeJobs()


@pytest.fixture
def client(jobs: FakeJobs) -> TestClient:
    """A client of the routes of jobs."""
    return make_job_client(jobs)
