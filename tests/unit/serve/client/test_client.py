"""Calls of a service over HTTP."""

import json
import time

import pytest

from serve.client import CallFailed, Client
from serve.client import client as module
from tests.unit.serve.client.job_answers import NOWHERE
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        monotonic = staticmethod(time.monotonic)
        perf_counter = staticmethod(time.perf_counter)

        @staticmethod
        def sleep(_: float) -> None:
            """Do not wait between two attempts."""

    monkeypatch.setattr(module, "time", Clock)


def readiness(*states: str) -> Scripted:
    models = {f"model-{i}": {"state": state} for i, state in enumerate(states)}
    return Scripted(json.dumps({"models": models}).encode())


def test_a_call_sends_its_body_and_returns_the_file_with_its_headers() -> None:
    headers = {"Content-Type": "video/mp4; codecs=avc1", "X-Frames": "5"}
    with scripted_server(Scripted(b"film", 200, headers)) as server, Client(server.url + "/", key="secret") as client:
        answer = client.call("wan2.6", {"prompt": "a cat"}, accept="video/mp4")
    assert (answer.data, answer.media_type, answer.extension) == (b"film", "video/mp4", "mp4")
    assert answer.headers["x-frames"] == "5"
    assert answer.seconds > 0
    (request,) = server.requests
    assert (request.method, request.path, request.body) == ("POST", "/wan2.6", {"prompt": "a cat"})
    assert request.headers["accept"] == "video/mp4"
    assert request.headers["authorization"] == "Bearer secret"


def test_without_a_key_no_credentials_are_sent() -> None:
    with scripted_server(Scripted()) as server, Client(server.url) as client:
        client.call("wan2.6", {})
    assert "authorization" not in server.requests[0].headers


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (problem(422, "`prompt` is required"), "wan2.6: 422 `prompt` is required"),
        (Scripted(b"Bad gateway", 502), "wan2.6: 502 Bad gateway"),
        (Scripted(b'{"error": 1}', 500), 'wan2.6: 500 {"error": 1}'),
        (Scripted(b"[1]", 500), r"wan2.6: 500 \[1\]"),
    ],
)
def test_a_refusal_is_raised_with_its_detail(answer: Scripted, message: str) -> None:
    with scripted_server(answer) as server, Client(server.url) as client, pytest.raises(CallFailed, match=message):
        client.call("wan2.6", {})


def test_an_answer_that_cannot_be_decoded_fails_the_call() -> None:
    broken = Scripted(b"not gzip", 200, {"Content-Encoding": "gzip"})
    with (
        scripted_server(broken) as server,
        Client(server.url) as client,
        pytest.raises(CallFailed, match=r"^wan2\.6: no answer from .*decompressing"),
    ):
        client.call("wan2.6", {})


def test_a_service_that_cannot_be_reached_is_named() -> None:
    with Client(NOWHERE) as client, pytest.raises(CallFailed, match=f"wan2.6: no answer from {NOWHERE}"):
        client.call("wan2.6", {})


def test_waiting_ends_when_requests_are_accepted() -> None:
    with scripted_server(problem(503, "starting"), problem(503, "starting"), readiness("asleep")) as server:
        with Client(server.url) as client:
            client.wait(60)
        assert [request.path for request in server.requests] == ["/readyz"] * 3


def test_waiting_ends_at_its_limit_with_the_last_answer() -> None:
    message = "does not accept requests after 0 s: 503 starting"
    with (
        scripted_server(problem(503, "starting")) as server,
        Client(server.url) as client,
        pytest.raises(CallFailed, match=message),
    ):
        client.wait(0)
    with Client(NOWHERE) as client, pytest.raises(CallFailed, match=f"{NOWHERE} does not accept requests after 0 s: "):
        client.wait(0)


def test_a_service_is_ready_when_every_model_is() -> None:
    answers = (problem(503, "starting"), readiness("ready", "asleep"), readiness("ready", "ready"))
    with scripted_server(*answers) as server, Client(server.url) as client:
        assert [client.waiting_for() for _ in range(3)] == ["the service (starting)", "model-1 (asleep)", None]
    with Client(NOWHERE) as client:
        assert client.waiting_for() == "the service"


@pytest.mark.parametrize(
    ("answer", "up", "alive"),
    [
        (Scripted(b"ok"), True, True),
        (problem(404, "no application runs at this path"), False, True),
        (problem(503, "no application runs at this path; a service that is starting has none yet"), False, True),
        (problem(408, "the request took too long"), False, True),
        (problem(503, "too many connections are open"), False, True),
        (problem(503, "the service cannot take the request now"), False, False),
        (problem(500, "the service runs without limits"), False, False),
        (Scripted(b"Bad gateway", 502), False, False),
    ],
)
def test_every_answer_but_a_server_error_is_a_sign_of_life(answer: Scripted, up: bool, alive: bool) -> None:
    with scripted_server(answer) as server, Client(server.url) as client:
        assert (client.not_up() is None, client.silence() is None) == (up, alive)


def test_no_answer_is_silence() -> None:
    with Client(NOWHERE) as client:
        assert "refused" in str(client.silence())
        assert "refused" in str(client.not_up())
