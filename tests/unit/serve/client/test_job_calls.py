"""The calls about jobs, with both clients."""

import json
from datetime import UTC, datetime

import httpx
import pytest

from serve.client import CallFailed, JobRecord
from serve.client.job_calls import job_path, outcome
from tests.unit.serve.client.both_clients import Kind, connected, paths
from tests.unit.serve.client.job_answers import DROPPED, ID, raw_record, record
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server

pytestmark = pytest.mark.usefixtures("pauses")


def test_a_submitted_job_is_described(kind: Kind) -> None:
    answer = record("queued", 202, queue_position=3, eta_seconds=40.5, later_field=1)
    with scripted_server(answer) as server, connected(kind, server.url, key="secret") as client:
        job = client.submit("/wan2.6", {"seed": 7}, prompt="a cat", accept="video/mp4")
    assert (job.id, job.model, job.state, job.ended, job.seed) == (ID, "wan2.6", "queued", False, 7)
    assert (job.progress.stage, job.progress.queue_position, job.progress.eta_s) == ("queued", 3, 40.5)
    assert job.created_at == datetime(2026, 11, 25, 12, tzinfo=UTC)
    assert job.expires_at == datetime(2026, 11, 26, 12, 0, 0, 500_000, tzinfo=UTC)
    assert job.links["result"] == f"/jobs/{ID}/result"
    assert job.raw["later_field"] == 1
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/wan2.6", {"seed": 7, "prompt": "a cat"})
    assert request.headers["prefer"] == "respond-async"
    assert request.headers["accept"] == "video/mp4"
    assert request.headers["authorization"] == "Bearer secret"


def test_two_submits_have_two_keys_unless_the_caller_names_one(kind: Kind) -> None:
    with scripted_server(record("queued", 202)) as server, connected(kind, server.url) as client:
        for options in ({}, {}, {"idempotency_key": "mine"}):
            client.submit("wan2.6", prompt="a cat", **options)
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"
    assert all(request.body == {"prompt": "a cat"} for request in server.requests)


@pytest.mark.parametrize("body", [b"RIFF", b"[]", b"{}", b'{"id": "x", "state": "queued", "created_at": "now"}'])
def test_an_answer_that_is_no_record_is_an_error(kind: Kind, body: bytes) -> None:
    with (
        scripted_server(Scripted(body)) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match="not the record of a job"),
    ):
        client.submit("wan2.6", prompt="a cat")


@pytest.mark.parametrize(("state", "status"), [("running", 202), ("cancelled", 202), ("succeeded", 200), ("failed", 200)])
def test_cancelling_is_one_call_that_may_be_repeated(kind: Kind, state: str, status: int) -> None:
    """An answer that is lost changes nothing: the next one has the record, whatever came before."""
    answers = (DROPPED, problem(502, "gateway"), record(state, status))
    with scripted_server(record(), *answers) as server, connected(kind, server.url) as client:
        client.status(ID)
        assert client.cancel(ID).state == state
    assert paths(server) == [f"GET /jobs/{ID}"] + 3 * [f"POST /jobs/{ID}/cancel"]


@pytest.mark.parametrize("status", [404, 405, 410])
def test_cancelling_never_deletes_a_job(kind: Kind, status: int) -> None:
    with (
        scripted_server(problem(status, "refused")) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=rf"^job {ID}: {status} refused$"),
    ):
        client.cancel(ID)
    assert paths(server) == [f"POST /jobs/{ID}/cancel"]


def test_an_id_is_one_part_of_a_path_whatever_it_contains(kind: Kind) -> None:
    with (
        scripted_server(problem(404, "no such job")) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed),
    ):
        client.status("../limits?x#y")
    assert paths(server) == ["GET /jobs/..%2Flimits%3Fx%23y"]


@pytest.mark.parametrize(("job_id", "name"), [(".", "%2E"), ("..", "%2E%2E"), ("...", "..."), ("a/../b", "a%2F..%2Fb")])
def test_an_id_of_dots_leads_to_no_other_path(job_id: str, name: str) -> None:
    path = job_path(job_id, "/cancel")
    sent = httpx.Request("POST", f"http://service{path}")  # httpx removes segments of dots, as a proxy may
    assert (path, sent.url.raw_path.decode()) == (f"/jobs/{name}/cancel", f"/jobs/{name}/cancel")


@pytest.mark.parametrize(
    ("state", "error", "message", "status"),
    [
        ("queued", None, None, None),
        ("running", None, None, None),
        ("succeeded", None, None, None),
        ("cancelled", None, f"job {ID} was cancelled", None),
        ("failed", {"status": 502, "detail": "both died"}, f"job {ID} failed: 502 both died", 502),
        ("failed", {"detail": "both died"}, f"job {ID} failed: both died", None),
        ("failed", {"status": 500, "detail": ""}, f"job {ID} failed: 500 the service did not say why", 500),
        ("failed", None, f"job {ID} failed: the service did not say why", None),
    ],
)
def test_the_outcome_of_a_job_is_an_error_only_where_it_ended_without_a_result(
    state: str, error: dict[str, object] | None, message: str | None, status: int | None
) -> None:
    failure = outcome(JobRecord.from_json(raw_record(state, error=error)))
    if message is None:
        assert failure is None
        return
    assert failure is not None
    assert (str(failure), failure.status, failure.problem) == (message, status, error or {})


def page(*ids: str, after: str | None = None, array: bool = False) -> Scripted:
    found = [raw_record(id=job_id) for job_id in ids]
    headers = {} if after is None else {"Link": f'<http://elsewhere.example/jobs?cursor={after}&limit=9>; rel="next"'}
    return Scripted(json.dumps(found if array else {"jobs": found}).encode(), 200, headers)


@pytest.mark.parametrize("array", [True, False])
def test_all_pages_of_jobs_are_listed_and_the_key_stays_at_the_service(kind: Kind, array: bool) -> None:
    answers = (page("a", "b", after="c1", array=array), DROPPED, page("c", array=array))
    with scripted_server(*answers) as server, connected(kind, server.url, key="secret") as client:
        assert [job.id for job in client.jobs(state="running")] == ["a", "b", "c"]
    assert paths(server)[0] == "GET /jobs?state=running&limit=100"
    assert paths(server)[1:] == 2 * ["GET /jobs?cursor=c1&limit=100"]
    assert all(request.headers["authorization"] == "Bearer secret" for request in server.requests)


def test_no_more_jobs_are_asked_for_than_wanted(kind: Kind) -> None:
    with scripted_server(page("a", "b", after="c1")) as server, connected(kind, server.url) as client:
        assert [job.id for job in client.jobs(limit=3)] == ["a", "b", "a"]
        assert client.jobs(limit=0) == []
    assert paths(server) == ["GET /jobs?limit=3", "GET /jobs?cursor=c1&limit=1"]


def test_a_link_to_the_next_page_that_is_no_url_is_an_error(kind: Kind) -> None:
    headers = {"Link": '<http://[::1>; rel="next"'}
    answer = Scripted(json.dumps([raw_record()]).encode(), 200, headers)
    with (
        scripted_server(answer) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=r"^jobs: the link to the next page is not a URL"),
    ):
        client.jobs(limit=3)


@pytest.mark.parametrize("answer", [problem(401, "no valid key"), Scripted(b"<html>"), Scripted(b'{"jobs": [1]}')])
def test_a_list_that_cannot_be_read_is_an_error(kind: Kind, answer: Scripted) -> None:
    with scripted_server(answer) as server, connected(kind, server.url) as client, pytest.raises(CallFailed, match=r"^jobs: "):
        client.jobs()
