"""Links of jobs admit their holder without a key, in the ingress and in Serve's proxy."""

import asyncio
import logging
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.testclient import TestClient

from serve.http.callers import auth
from serve.http.callers.auth import ApiKeys, RequireKey
from serve.http.jobs.record import Links
from serve.http.middleware import RequestBoundary
from serve.http.proxy import middlewares
from serve.http.routes import job_routes, make_router
from tests.unit.serve.http.asgi import EchoApp, Exchange, http_scope
from tests.unit.serve.http.callers.key_file import line
from tests.unit.serve.http.job_service import make_handlers
from tests.unit.serve.jobs.fake_jobs import FakeJobs, make_job


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(line("anna", "old") + line("anna", "one") + line("ben", "two"))
    return path


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def client(path: Path, jobs: FakeJobs, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setattr(auth, "REREAD_S", -1.0)
    keys = ApiKeys(path)
    router = make_router(job_routes(make_handlers(jobs, sign=keys.sign_link)))
    return TestClient(RequestBoundary(RequireKey(router, keys)))


async def links_of_annas_job(client: TestClient, jobs: FakeJobs) -> dict[str, str]:
    job = jobs.add(make_job(caller="anna"))
    await jobs.step(job.id, stage="decoding", preview=True)
    await jobs.files.put(f"previews/{job.id}/{job.attempt}", b"a frame")
    links: dict[str, str] = client.get(f"/jobs/{job.id}", headers={"authorization": "Bearer one"}).json()["links"]
    assert client.get(links["preview"]).content == b"a frame"
    await jobs.succeed(job.id, b"the file")
    return links


async def test_the_links_of_a_record_work_without_a_key(client: TestClient, jobs: FakeJobs) -> None:
    links = await links_of_annas_job(client, jobs)
    assert client.get(links["self"]).json()["state"] == "succeeded"
    assert client.get(links["result"]).content == b"the file"
    assert client.head(links["result"]).status_code == 200
    assert client.get(links["result"], headers={"range": "bytes=0-2"}).content == b"the"
    assert b"event: succeeded" in client.get(links["events"]).content
    assert client.get(links["result"] + "&wait=5").status_code == 200


async def test_a_link_admits_to_nothing_else(client: TestClient, jobs: FakeJobs) -> None:
    links = await links_of_annas_job(client, jobs)
    query = urlsplit(links["result"]).query
    for target in (links["self"].partition("?")[0], "/jobs", "/jobs/", f"/jobs/{'0' * 32}/result"):
        assert client.get(f"{target}?{query}").status_code == 401
    assert client.delete(links["self"]).status_code == 401
    assert client.post(links["self"]).status_code == 401
    assert client.get(links["result"].replace("signature=", "signature=0")).status_code == 401
    assert client.get(links["result"].partition("?")[0]).status_code == 401


async def test_a_key_that_is_sent_counts_instead_of_the_link(client: TestClient, jobs: FakeJobs) -> None:
    links = await links_of_annas_job(client, jobs)
    assert client.get(links["result"], headers={"authorization": "Bearer two"}).status_code == 404
    assert client.get(links["result"], headers={"authorization": "Bearer wrong"}).status_code == 401


def test_links_end_with_the_key(client: TestClient, jobs: FakeJobs, path: Path) -> None:
    links = asyncio.run(links_of_annas_job(client, jobs))
    path.write_text(line("anna", "old") + line("ben", "two"))
    refused = client.get(links["result"])
    assert (refused.status_code, "new links" in refused.json()["detail"]) == (401, True)


async def test_a_link_is_in_no_log(client: TestClient, jobs: FakeJobs, caplog: pytest.LogCaptureFixture) -> None:
    links = await links_of_annas_job(client, jobs)
    signature = urlsplit(links["result"]).query.rpartition("=")[2]
    with caplog.at_level(logging.DEBUG, "ray.serve"):
        client.get(links["result"])
        client.get(links["result"].replace("/result?", "/preview?"))
    assert "401" in caplog.text
    assert signature not in caplog.text


async def test_the_proxy_lets_the_same_links_pass(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RYLA_API_KEYS", str(path))
    (check,) = [layer for layer in middlewares() if getattr(layer.cls, "__name__", "") == "RequireKey"]
    app = EchoApp()
    job = make_job(caller="anna")
    link = urlsplit(Links(ApiKeys(path).sign_link).of(job, "/events"))
    for query, passes in ((link.query, True), (link.query[:-1], False)):
        exchange = Exchange()
        scope = {**http_scope(link.path, "GET"), "query_string": query.encode()}
        boundary = RequestBoundary(check.cls(app, *check.args, **check.kwargs))
        await boundary(scope, exchange.receive, exchange.send)
        assert exchange.status == (200 if passes else 401)
    assert len(app.scopes) == 1
