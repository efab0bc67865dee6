"""Results over connections that break and services that are away, with both clients."""

import pytest

from serve.client import CallFailed
from tests.unit.serve.client.both_clients import Kind, connected, paths
from tests.unit.serve.client.job_answers import DROPPED, ETAG, FILM, ID, event, events, film, record
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server

pytestmark = pytest.mark.usefixtures("pauses")


def test_a_result_is_fetched_with_its_headers(kind: Kind) -> None:
    with scripted_server(film()) as server, connected(kind, server.url) as client:
        answer = client.result(ID)
    assert (answer.data, answer.extension, answer.headers["x-frames"]) == (FILM, "mp4", "5")
    assert paths(server) == [f"GET /jobs/{ID}/result"]
    assert "range" not in server.requests[0].headers


def test_a_result_that_breaks_off_goes_on_where_it_was(kind: Kind) -> None:
    answers = (film(cut=1000), DROPPED, film(1000, cut=500), film(1500))
    with scripted_server(*answers) as server, connected(kind, server.url) as client:
        answer = client.result(ID)
    assert answer.data == FILM
    assert answer.headers["content-length"] == str(len(FILM))
    assert "content-range" not in answer.headers
    ranges = [request.headers.get("range") for request in server.requests]
    assert ranges == [None, "bytes=1000-", "bytes=1000-", "bytes=1500-"]
    assert [request.headers.get("if-range") for request in server.requests[1:]] == 3 * [ETAG]


@pytest.mark.parametrize(
    "second",
    [
        film(etag='"e2"'),  # it has changed, so that If-Range brought all of it
        problem(416, "out of range"),
        film(999),  # another part than the one that was asked for
        Scripted(FILM[1000:], 206, {"Content-Range": "bytes */10240"}),
        film(1000, etag='"e2"'),  # the rest of another file, from something that knows no If-Range
        film(1000, etag=""),
    ],
)
def test_a_result_of_which_no_rest_comes_is_fetched_anew(kind: Kind, second: Scripted) -> None:
    with scripted_server(film(cut=1000), second, film()) as server, connected(kind, server.url) as client:
        assert client.result(ID).data == FILM
    assert server.requests[1].headers["range"] == "bytes=1000-"
    assert all("range" not in request.headers for request in server.requests[2:])


@pytest.mark.parametrize("etag", ["", 'W/"e1"'])
def test_a_result_without_a_strong_etag_is_fetched_anew(kind: Kind, etag: str) -> None:
    with scripted_server(film(etag=etag, cut=1000), film(etag=etag)) as server, connected(kind, server.url) as client:
        assert client.result(ID).data == FILM
    assert "range" not in server.requests[1].headers


def test_a_result_that_always_breaks_off_at_the_same_byte_is_given_up(kind: Kind, pauses: list[float]) -> None:
    with (
        scripted_server(film(etag="", cut=1000)) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=f"job {ID}: no answer from"),
    ):
        client.result(ID)
    assert sum(pauses) <= 2 * 300


def test_a_result_is_waited_for(kind: Kind) -> None:
    answers = (problem(409, "not ready"), record(), events(event(1), event(2, "succeeded")), film())
    with scripted_server(*answers) as server, connected(kind, server.url) as client:
        assert client.result(ID).data == FILM
    with (
        scripted_server(problem(409, "the job is still running"), record()) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=f"^job {ID}: 409 the job is still running$"),
    ):
        client.result(ID, wait=False)


def test_a_failed_job_raises_its_problem(kind: Kind) -> None:
    error = {"status": 502, "detail": "the replica died twice", "request_id": "r1"}
    with (
        scripted_server(problem(409, "not succeeded"), record("failed", error=error)) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=f"^job {ID} failed: 502 the replica died twice$") as failed,
    ):
        client.result(ID)
    assert (failed.value.status, failed.value.problem) == (502, error)


@pytest.mark.parametrize(
    ("state", "message"), [("cancelled", f"^job {ID} was cancelled$"), ("failed", "failed: the service did not say why$")]
)
def test_a_job_that_ended_without_a_result_says_so(kind: Kind, state: str, message: str) -> None:
    with (
        scripted_server(problem(409, "not succeeded"), record(state)) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=message),
    ):
        client.result(ID)


def test_an_expired_result_says_so(kind: Kind) -> None:
    with (
        scripted_server(problem(410, "the result expired")) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=f"^job {ID}: 410 the result expired$") as failed,
    ):
        client.result(ID)
    assert failed.value.status == 410
