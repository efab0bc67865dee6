import asyncio
import re
import time
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.http.jobs.listeners import Listeners
from serve.problems import replica_lost
from tests.unit.serve.http.asgi import Exchange, http_scope, until
from tests.unit.serve.http.job_service import RESULT, make_job_service, slug
from tests.unit.serve.jobs.fake_jobs import NOW, FakeJobs, make_job


async def test_a_failed_job_has_the_problem_of_its_failure(jobs: FakeJobs, client: TestClient) -> None:
    job = jobs.add(make_job())
    problem = {"type": "urn:ryla:problem:replica-lost", "status": 502, "detail": "the replica died"}
    await jobs.change(job.id, state="failed", problem=problem)
    assert client.get(f"/jobs/{job.id}").json()["error"] == problem
    refused = client.get(f"/jobs/{job.id}/result")
    assert (refused.status_code, slug(refused)) == (409, "conflict")
    assert "failed" in refused.json()["detail"]
    assert "the replica died" in refused.json()["detail"]


@pytest.mark.parametrize("part", ["", "/events", "/result", "/preview"])
@pytest.mark.parametrize("job_id", ["0" * 32, "no-id", "0" * 31, "../readyz"])
def test_an_unknown_job_is_a_404(client: TestClient, part: str, job_id: str) -> None:
    assert client.get(f"/jobs/{job_id}{part}").status_code == 404


@pytest.mark.parametrize(
    ("method", "part"),
    [("GET", ""), ("GET", "/events"), ("GET", "/result"), ("GET", "/preview"), ("DELETE", ""), ("POST", "/cancel")],
)
def test_the_job_of_another_caller_is_a_404(jobs: FakeJobs, client: TestClient, method: str, part: str) -> None:
    job = jobs.add(make_job(caller="somebody-else"))
    response = client.request(method, f"/jobs/{job.id}{part}")
    assert (response.status_code, slug(response)) == (404, "not-found")
    assert jobs.jobs[job.id] is job


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/result"),
        ("GET", "/preview"),
        ("DELETE", ""),
        ("GET", "list"),
        ("POST", "/cancel"),
    ],
)
def test_a_store_that_cannot_be_reached_is_a_503(jobs: FakeJobs, client: TestClient, method: str, part: str) -> None:
    job = jobs.add(make_job())
    jobs.broken = True
    response = client.request(method, "/jobs" if part == "list" else f"/jobs/{job.id}{part}")
    assert (response.status_code, slug(response)) == (503, "unavailable")
    assert int(response.headers["retry-after"]) >= 1


async def test_a_result_that_is_not_there_says_why(jobs: FakeJobs, client: TestClient) -> None:
    queued, cancelled, gone, private = (jobs.add(make_job()) for _ in range(4))
    early = client.get(f"/jobs/{queued.id}/result")
    assert (early.status_code, slug(early)) == (409, "conflict")
    assert int(early.headers["retry-after"]) >= 1
    await jobs.change(cancelled.id, state="cancelled")
    never = client.get(f"/jobs/{cancelled.id}/result")
    assert (never.status_code, "was cancelled" in never.json()["detail"]) == (409, True)
    assert "retry-after" not in never.headers
    await jobs.succeed(gone.id, RESULT)
    await jobs.files.delete_all("results")
    await jobs.succeed(private.id, RESULT, key=None)
    for job in (gone, private):
        response = client.get(f"/jobs/{job.id}/result")
        assert (response.status_code, slug(response)) == (410, "gone")


async def test_a_job_that_has_expired_is_gone_before_it_is_swept(jobs: FakeJobs, client: TestClient) -> None:
    expired = jobs.add(make_job(expires_at=time.time() - 5))
    assert client.get(f"/jobs/{expired.id}").status_code == 200, "it has not ended"
    await jobs.succeed(expired.id, RESULT)
    await jobs.change(expired.id, expires_at=time.time() - 5)
    for path in ("", "/result", "/events"):
        response = client.get(f"/jobs/{expired.id}{path}")
        assert (response.status_code, slug(response)) == (410, "gone"), path
    assert client.get("/jobs").json()["jobs"] == []
    assert client.delete(f"/jobs/{expired.id}").status_code == 204


async def call(jobs: FakeJobs, path: str, headers: dict[str, str] | None = None, **settings: Any) -> Exchange:
    """Send a GET whose query may stand in the path, and return the exchange once it is answered."""
    exchange = Exchange()
    path, _, query = path.partition("?")
    scope = {**http_scope(path, "GET", headers), "query_string": query.encode(), "client": ("testclient", 1)}
    await make_job_service(jobs, **settings)(scope, exchange.receive, exchange.send)
    return exchange


async def test_a_caller_can_wait_for_the_result(jobs: FakeJobs) -> None:
    job = jobs.add(make_job())
    waiting = asyncio.ensure_future(call(jobs, f"/jobs/{job.id}/result?wait=500"))
    await jobs.step(job.id, stage="denoising", percent=50)
    await asyncio.sleep(0)
    assert not waiting.done()
    await jobs.succeed(job.id, RESULT)
    exchange = await waiting
    assert (exchange.status, exchange.body) == (200, RESULT)


async def test_a_wait_that_is_too_short_ends_in_a_409_or_leads_on(jobs: FakeJobs) -> None:
    job = jobs.add(make_job())
    refused = await call(jobs, f"/jobs/{job.id}/result?wait=900", max_wait_s=0.01)
    assert refused.status == 409
    led_on = await call(jobs, f"/jobs/{job.id}/result?wait=900", max_wait_s=0.01, redirects=True)
    assert led_on.status == 303
    assert led_on.headers["location"] == f"/jobs/{job.id}/result?wait=1"  # a wait of no time would lead in a circle
    at_once = await call(jobs, f"/jobs/{job.id}/result?wait=0", redirects=True)
    assert at_once.status == 409
    malformed = await call(jobs, f"/jobs/{job.id}/result?wait=soon")
    assert (malformed.status, malformed.problem["errors"][0]["parameter"]) == (422, "wait")


async def test_who_is_led_on_gets_the_problem_of_the_job(jobs: FakeJobs) -> None:
    lost = replica_lost("both replicas died", 5).record("the-request")
    job = jobs.add(make_job(state="failed", problem=lost))
    refused = await call(jobs, f"/jobs/{job.id}/result?wait=9")
    assert refused.status == 409
    led_on = await call(jobs, f"/jobs/{job.id}/result?wait=9", redirects=True)
    assert (led_on.status, led_on.headers["retry-after"]) == (502, "5")
    assert led_on.problem["detail"] == "both replicas died"


async def test_the_preview_is_the_latest_frame_of_the_attempt(jobs: FakeJobs, client: TestClient) -> None:
    job = jobs.add(make_job(attempt=2, state="running"))
    early = client.get(f"/jobs/{job.id}/preview")
    assert (early.status_code, slug(early), "retry-after" in early.headers) == (404, "not-found", True)
    await jobs.files.put(f"previews/{job.id}/1", b"of an earlier attempt")
    await jobs.files.put(f"previews/{job.id}/2", b"a frame")
    await jobs.step(job.id, stage="decoding", preview=True)
    preview = client.get(f"/jobs/{job.id}/preview")
    assert (preview.status_code, preview.content) == (200, b"a frame")
    assert (preview.headers["content-type"], preview.headers["cache-control"]) == ("image/jpeg", "no-store")
    assert "x-provenance" not in preview.headers  # a Runner of an older release has not said what it did
    for marks in ("metadata, watermark", "none"):
        await jobs.step(job.id, stage="decoding", preview=True, preview_marks=marks)
        assert client.get(f"/jobs/{job.id}/preview").headers["x-provenance"] == marks


def test_the_list_has_the_callers_jobs_newest_first_in_pages(jobs: FakeJobs, client: TestClient) -> None:
    ids = [jobs.add(make_job(created_at=NOW + number, state=("queued", "running")[number % 2])).id for number in range(7)][::-1]
    jobs.add(make_job(caller="somebody-else"))
    path, found, pages = "/jobs?limit=3", [], 0
    while path:
        response = client.get(path)
        found += [job["id"] for job in response.json()["jobs"]]
        link = re.fullmatch(r'<(.*)>; rel="next"', response.headers.get("link", ""))
        assert (link and link[1]) == response.json()["next"]
        path, pages = link[1] if link else "", pages + 1
    assert (found, pages) == (ids, 3)
    running = client.get("/jobs?state=running&limit=2")
    assert [job["id"] for job in running.json()["jobs"]] == ids[1:4:2]
    assert [job["id"] for job in client.get(running.json()["next"]).json()["jobs"]] == ids[5:6]


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "limit=-1", "state=done", "cursor=nonsense"])
def test_a_wrong_parameter_of_the_list_is_named(client: TestClient, query: str) -> None:
    response = client.get(f"/jobs?{query}")
    assert response.status_code == 422
    assert response.json()["errors"][0]["parameter"] == query.partition("=")[0]


def test_links_are_below_the_prefix_of_the_service(jobs: FakeJobs) -> None:
    job = jobs.add(make_job())
    prefixed = TestClient(make_job_service(jobs), root_path="/films")
    links = prefixed.get(f"/films/jobs/{job.id}").json()["links"]
    assert links["result"] == f"/films/jobs/{job.id}/result"
    assert prefixed.get(links["self"]).json()["id"] == job.id


async def test_who_waits_takes_a_place_and_frees_it(jobs: FakeJobs) -> None:
    listeners = Listeners(limit=5, limit_of_one=1)
    job = jobs.add(make_job())
    waiting = asyncio.ensure_future(call(jobs, f"/jobs/{job.id}/result?wait=500", listeners=listeners))
    await until(lambda: listeners.count == 1)
    assert (await call(jobs, f"/jobs/{job.id}/result?wait=500", listeners=listeners)).status == 503
    await jobs.succeed(job.id, RESULT)
    assert ((await waiting).status, listeners.count) == (200, 0)


def test_a_405_lists_every_method_of_the_path(jobs: FakeJobs, client: TestClient) -> None:
    job = jobs.add(make_job())
    refused = client.post(f"/jobs/{job.id}")
    assert refused.status_code == 405
    assert sorted(refused.headers["allow"].split(", ")) == ["DELETE", "GET", "HEAD"]


@pytest.mark.parametrize(("part", "headers"), [("/events", {}), ("", {"accept": "text/event-stream"})])
def test_head_of_events_opens_no_stream(jobs: FakeJobs, client: TestClient, part: str, headers: dict[str, str]) -> None:
    job = jobs.add(make_job())
    head = client.head(f"/jobs/{job.id}{part}", headers=headers)
    assert (head.status_code, head.content, jobs.following) == (200, b"", 0)
    assert head.headers["content-type"].startswith("text/event-stream")
