"""Jobs that are followed over connections that break, with both clients."""

from contextlib import ExitStack

import pytest

from serve.client import CallFailed
from tests.unit.serve.client.both_clients import Kind, connected, paths
from tests.unit.serve.client.job_answers import DROPPED, FILM, ID, event, events, film, record
from tests.unit.serve.scripted_server import Scripted, ScriptedServer, problem, scripted_server

pytestmark = pytest.mark.usefixtures("pauses")


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
