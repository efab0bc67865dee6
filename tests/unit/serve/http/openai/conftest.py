"""/v1/videos over jobs in memory, and OpenAI's package as its client."""

from collections.abc import Iterator

import openai
import pytest
from starlette.testclient import TestClient

from tests.unit.serve.http.openai.videos_service import Accepted, make_http
from tests.unit.serve.jobs.fake_jobs import FakeJobs


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def accepted(jobs: FakeJobs) -> Accepted:
    return Accepted(jobs)


@pytest.fixture
def http(jobs: FakeJobs, accepted: Accepted) -> Iterator[TestClient]:
    with make_http(jobs, accepted) as client:
        yield client


@pytest.fixture
def client(http: TestClient) -> openai.OpenAI:
    return openai.OpenAI(base_url="http://testserver/v1", api_key="any", http_client=http, max_retries=0)
