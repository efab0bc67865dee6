"""Jobs over connections that break and services that are away, with both clients."""

import json
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serve.client import CallFailed, Retries
from tests.unit.serve.client.both_clients import Kind, connected, paths
from tests.unit.serve.client.job_answers import FILM, ID, event, events, film, raw_record, record
from tests.unit.serve.scripted_server import Scripted, ScriptedServer, problem, scripted_server

pytestmark = pytest.mark.usefixtures("pauses")
DROPPED = Scripted(cut=-1)
"""The connection is closed instead of an answer."""
NOWHERE = "http://127.0.0.1:9"


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


@pytest.mark.parametrize("broken", [DROPPED, Scripted(b'{"id": "5f0c"}', 202, cut=3), problem(502, "gateway")])
def test_a_submit_that_breaks_off_is_sent_again_with_the_same_key_and_body(
    kind: Kind, broken: Scripted, tmp_path: Path
) -> None:
    face = tmp_path / "face.jpg"
    face.write_bytes(b"\xff\xd8 a face \xff")
    fields = {"face_image": face, "source_image": b"a picture", "restore_face": False, "seed": 3, "nothing": None}
    with (
        face.open("rb") as opened,
        scripted_server(broken, DROPPED, record("queued", 202)) as server,
        connected(kind, server.url) as client,
    ):
        # The server has answered nothing yet, but the connection was made.
        assert client.submit("image-faceswap", fields, reference_image=opened, faces=["left", "right"]).id == ID
    first, *others = server.requests
    assert len(others) == 2
    assert len(first.headers["idempotency-key"]) == 32
    for other in others:
        assert (other.raw, other.headers["idempotency-key"]) == (first.raw, first.headers["idempotency-key"])
        assert other.headers["content-type"] == first.headers["content-type"]
    for name, value in (("face_image", face.read_bytes()), ("reference_image", face.read_bytes()), ("seed", b"3")):
        assert f'name="{name}"'.encode() in first.raw
        assert b"\r\n\r\n" + value + b"\r\n" in first.raw
    assert b"\r\n\r\nfalse\r\n" in first.raw
    assert first.raw.count(b'name="faces"') == 2
    assert b"nothing" not in first.raw


def test_two_submits_have_two_keys_unless_the_caller_names_one(kind: Kind) -> None:
    with scripted_server(record("queued", 202)) as server, connected(kind, server.url) as client:
        for options in ({}, {}, {"idempotency_key": "mine"}):
            client.submit("wan2.6", prompt="a cat", **options)
    keys = [request.headers["idempotency-key"] for request in server.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "mine"
    assert all(request.body == {"prompt": "a cat"} for request in server.requests)


def test_a_service_that_asks_to_be_called_later_is_called_later(kind: Kind, pauses: list[float]) -> None:
    busy = Scripted(b'{"detail": "the queue is full"}', 503, {"Retry-After": "7"})
    quota = Scripted(b'{"detail": "too many"}', 429, {"Retry-After": "40"})
    reasons: list[str] = []
    with (
        scripted_server(busy, quota, record("queued", 202)) as server,
        connected(kind, server.url, on_retry=reasons.append) as client,
    ):
        client.submit("wan2.6", prompt="a cat")
    assert pauses == [7, 40]
    assert reasons == ["wan2.6: 503 the queue is full", "wan2.6: 429 too many"]


def test_a_service_that_asks_for_more_than_the_patience_is_not_waited_for(kind: Kind, pauses: list[float]) -> None:
    busy = Scripted(b'{"detail": "the queue is full", "status": 503}', 503, {"Retry-After": "400"})
    with (
        scripted_server(busy) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=r"^wan2\.6: 503 the queue is full$") as failed,
    ):
        client.submit("wan2.6", prompt="a cat")
    assert (failed.value.status, failed.value.problem) == (503, {"detail": "the queue is full", "status": 503})
    assert pauses == []


@pytest.mark.parametrize("header", ["-1", "nan", "inf", "soon", ""])
def test_attempts_end_with_the_patience_and_their_pauses_grow(kind: Kind, pauses: list[float], header: str) -> None:
    patience = Retries(patience_s=60, first_s=1, longest_s=8)
    busy = Scripted(b'{"detail": "starting"}', 503, {"Retry-After": header})
    with (
        scripted_server(busy) as server,
        connected(kind, server.url, retries=patience) as client,
        pytest.raises(CallFailed, match="503 starting"),
    ):
        client.status(ID)
    assert 40 < sum(pauses) <= 60
    assert all(0.5 * 2**i <= pause <= 2**i for i, pause in enumerate(pauses[:4]))
    assert max(pauses) <= 8
    assert len(server.requests) == len(pauses) + 1


def test_an_address_that_never_answered_is_reported_at_once(kind: Kind, pauses: list[float]) -> None:
    with connected(kind, NOWHERE) as client:
        for ask in (client.status, client.subscribe, client.result, client.cancel):
            with pytest.raises(CallFailed, match=rf"^job {ID}: no answer from {NOWHERE} .*is the service running\?$"):
                ask(ID)
    assert pauses == []


@pytest.mark.parametrize("url", ["ftp://x", "host:80a", "http://[::1"])
def test_an_address_that_no_service_has_is_reported_at_once(kind: Kind, url: str, pauses: list[float]) -> None:
    with pytest.raises(CallFailed), connected(kind, url) as client:
        client.status(ID)
    assert pauses == []


def test_a_refusal_is_not_repeated(kind: Kind, pauses: list[float]) -> None:
    refused = Scripted(b'{"detail": "`prompt` is required", "errors": [{"pointer": "#/prompt"}]}', 422)
    with (
        scripted_server(refused) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=r"^wan2\.6: 422 `prompt` is required$") as failed,
    ):
        client.submit("wan2.6")
    assert failed.value.problem["errors"] == [{"pointer": "#/prompt"}]
    assert (len(server.requests), pauses) == (1, [])


@pytest.mark.parametrize("body", [b"RIFF", b"[]", b"{}", b'{"id": "x", "state": "queued", "created_at": "now"}'])
def test_an_answer_that_is_no_record_is_an_error(kind: Kind, body: bytes) -> None:
    with (
        scripted_server(Scripted(body)) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match="not the record of a job"),
    ):
        client.submit("wan2.6", prompt="a cat")


def test_a_value_that_cannot_be_sent_is_named(kind: Kind) -> None:
    with connected(kind, NOWHERE) as client:
        with pytest.raises(TypeError, match="prompt: a dict cannot be sent in a form"):
            client.submit("wan2.6", prompt={}, reference_image=b"x")
        with pytest.raises(FileNotFoundError):
            client.submit("wan2.6", reference_image=Path("nope.jpg"))


def test_progress_arrives_as_events(kind: Kind, pauses: list[float]) -> None:
    stream = events(
        b": ping\n\n",
        event(1, stage="starting", detail="loads the weights"),
        event(2, step=1, percent=25.0, eta_seconds=3.0),
        b"event: preview\ndata: {}\n\nevent: note\ndata: text\n\n",
        event(3, "succeeded", percent=100.0),
        event(4, "progress"),
    )
    with scripted_server(stream) as server, connected(kind, server.url) as client:
        records = client.subscribe(ID)
    assert [(r.state, r.progress.stage, r.progress.percent) for r in records] == [
        ("running", "starting", 0),
        ("running", "denoising", 25),
        ("succeeded", "succeeded", 100),
    ]
    assert records[0].progress.detail == "loads the weights"
    assert (records[1].progress.step, records[1].progress.steps, records[1].progress.eta_s) == (1, 4, 3.0)
    assert paths(server) == [f"GET /jobs/{ID}/events"]
    assert server.requests[0].headers["accept"] == "text/event-stream"
    assert "last-event-id" not in server.requests[0].headers
    assert pauses == []


@pytest.mark.parametrize("breaks_in_event", [True, False])
def test_events_that_break_off_go_on_after_the_last_one(kind: Kind, breaks_in_event: bool) -> None:
    whole = event(1, step=1) + event(2, step=2)
    cut = len(whole) + 30 if breaks_in_event else None
    answers = (
        events(whole, event(3, step=3) if breaks_in_event else b"", cut=cut),
        events(event(3, step=3), event(4, "succeeded")),
    )
    with scripted_server(*answers) as server, connected(kind, server.url) as client:
        records = client.subscribe(ID)
    assert [r.progress.step for r in records[:-1]] == [1, 2, 3]
    assert records[-1].state == "succeeded"
    assert server.requests[1].headers["last-event-id"] == "2"


def test_a_service_that_is_away_for_a_while_is_waited_for(kind: Kind, pauses: list[float]) -> None:
    """The port refuses connections, then Serve's proxy has no application, then all is there."""
    with ExitStack() as later, ExitStack() as first:
        server = first.enter_context(scripted_server(events(event(1, step=1), event(2, step=2), cut=len(event(1, step=1)))))
        port = server.server_port
        reasons: list[str] = []
        successors: list[ScriptedServer] = []

        def on_retry(reason: str) -> None:
            reasons.append(reason)
            first.close()
            if len(reasons) == 4:
                starting = problem(404, "no application runs at this path; a service that is starting has none yet")
                bad_gateway = Scripted(b"<html>", 502)
                rest = events(event(2, step=2), event(3, "succeeded"))
                successors.append(later.enter_context(scripted_server(bad_gateway, starting, rest, port=port)))

        with connected(kind, server.url, on_retry=on_retry) as client:
            records = client.subscribe(ID)
        (successor,) = successors
        assert [r.progress.step for r in records[:-1]] == [1, 2]
        assert [request.headers["last-event-id"] for request in successor.requests] == ["1", "1", "1"]
    assert sum("refused" in reason or "no answer" in reason for reason in reasons) >= 3
    assert len(pauses) == 6


def test_without_events_the_client_asks(kind: Kind, pauses: list[float]) -> None:
    for refused in (problem(404, "unknown path"), problem(406, "no"), Scripted(b"<html>", 200, {"Content-Type": "text/html"})):
        answers = (refused, record(step=1), record(step=1), record(step=2), DROPPED, record("succeeded"))
        with scripted_server(*answers) as server, connected(kind, server.url) as client:
            records = client.subscribe(ID)
        assert [(r.state, r.progress.step) for r in records] == [("running", 1), ("running", 2), ("succeeded", 0)]
        assert paths(server) == [f"GET /jobs/{ID}/events"] + 5 * [f"GET /jobs/{ID}"]


def test_streams_that_bring_no_news_are_given_up_for_asking(kind: Kind) -> None:
    empty = events(b": ping\n\n")
    with (
        scripted_server(events(event(1, step=1)), empty, empty, empty, record("cancelled")) as server,
        connected(kind, server.url) as client,
    ):
        assert [r.state for r in client.subscribe(ID)] == ["running", "cancelled"]
    assert paths(server) == 4 * [f"GET /jobs/{ID}/events"] + [f"GET /jobs/{ID}"]


def test_a_last_event_without_a_record_is_looked_up(kind: Kind) -> None:
    with (
        scripted_server(events(b"event: failed\ndata: {}\n\n"), record("failed")) as server,
        connected(kind, server.url) as client,
    ):
        assert [r.state for r in client.subscribe(ID)] == ["failed"]


@pytest.mark.parametrize("status", [401, 404])
def test_following_a_job_that_is_not_there_fails(kind: Kind, status: int) -> None:
    with (
        scripted_server(problem(status, "no such job")) as server,
        connected(kind, server.url) as client,
        pytest.raises(CallFailed, match=rf"^job {ID}: {status} no such job$"),
    ):
        client.subscribe(ID)


@pytest.mark.parametrize("refused", [problem(503, "too many connections wait for jobs"), problem(429, "too many")])
def test_where_there_is_no_place_for_a_listener_the_record_is_read(kind: Kind, refused: Scripted, pauses: list[float]) -> None:
    answers = (refused, record(step=1), problem(503, "starting"), record("succeeded"))
    with scripted_server(*answers) as server, connected(kind, server.url) as client:
        assert [r.state for r in client.subscribe(ID)] == ["running", "succeeded"]
    assert paths(server) == [f"GET /jobs/{ID}/events"] + 3 * [f"GET /jobs/{ID}"]
    assert len(pauses) == 2
    waiting = (problem(409, "not yet"), record(), refused, record("succeeded"), film())
    with scripted_server(*waiting) as server, connected(kind, server.url) as client:
        assert client.result(ID).data == FILM


def test_a_service_that_starts_is_waited_for_before_its_events(kind: Kind) -> None:
    starting = problem(503, "no application runs at this path; a service that is starting has none yet")
    with scripted_server(starting, events(event(1, "succeeded"))) as server, connected(kind, server.url) as client:
        assert [r.state for r in client.subscribe(ID)] == ["succeeded"]
    assert paths(server) == 2 * [f"GET /jobs/{ID}/events"]


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


@pytest.mark.parametrize("answer", [problem(401, "no valid key"), Scripted(b"<html>"), Scripted(b'{"jobs": [1]}')])
def test_a_list_that_cannot_be_read_is_an_error(kind: Kind, answer: Scripted) -> None:
    with scripted_server(answer) as server, connected(kind, server.url) as client, pytest.raises(CallFailed, match=r"^jobs: "):
        client.jobs()
