"""When requests are sent again, and for how long, with both clients."""

from types import SimpleNamespace

import httpx
import pytest

from serve.client import CallFailed, Retries, retries
from serve.client.flow import Operation, Pause, Send, Steps
from serve.client.retries import NO_APPLICATION, Outage, Service, persist
from tests.unit.serve.client.both_clients import Kind, connected
from tests.unit.serve.client.job_answers import ID, NOWHERE, record
from tests.unit.serve.scripted_server import Scripted, scripted_server

pytestmark = pytest.mark.usefixtures("pauses")


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


def test_an_answer_that_cannot_be_decoded_is_asked_for_again(kind: Kind, pauses: list[float]) -> None:
    broken = Scripted(b"not gzip", 200, {"Content-Encoding": "gzip"})
    with scripted_server(broken, record()) as server, connected(kind, server.url) as client:
        assert client.status(ID).state == "running"
    assert len(pauses) == 1


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


REQUEST = Send(method="GET", path="/jobs/x")


def answered(status: int, detail: str = "later", **headers: str) -> httpx.Response:
    return httpx.Response(
        status, json={"detail": detail}, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def asked(*, reached: bool = False, again: frozenset[int] = retries.AGAIN) -> Steps[httpx.Response]:
    """Return the steps of a request to a service that has answered before, or has not."""
    service = Service("http://service", Retries())
    service.reached = reached
    return Steps(persist(REQUEST, "job x", service, Outage(service.retries), again=again))


def operation(steps: Steps[httpx.Response]) -> Operation | None:
    """Return the next operation, of which a type checker does not know that it changes."""
    return steps.operation


@pytest.mark.parametrize(
    ("status", "detail", "waits"),
    [
        *((status, "later", True) for status in (429, 502, 503, 504)),
        *((status, "no", False) for status in (400, 401, 404, 409, 410, 422, 500)),
        (404, f"{NO_APPLICATION}; a service that is starting has none yet", True),
        (422, NO_APPLICATION, False),
    ],
)
def test_only_what_another_attempt_may_change_is_sent_again(status: int, detail: str, waits: bool) -> None:
    steps = asked()
    refused = answered(status, detail)
    steps.reply(refused)
    if not waits:
        assert (operation(steps), steps.result) == (None, refused)
        return
    pause = operation(steps)
    assert isinstance(pause, Pause)
    assert pause.reason == f"job x: {status} {detail}"
    steps.reply(None)
    assert operation(steps) is REQUEST
    done = answered(200)
    steps.reply(done)
    assert (operation(steps), steps.result) == (None, done)


def test_a_status_that_the_call_answers_itself_is_not_sent_again_unless_the_service_starts() -> None:
    steps = asked(again=retries.AGAIN - {503})
    steps.reply(answered(503, NO_APPLICATION))
    assert isinstance(steps.operation, Pause)
    steps.reply(None)
    steps.reply(answered(503, "too many connections wait for jobs"))
    assert steps.result.status_code == 503


@pytest.mark.parametrize(
    ("error", "reached", "waits"),
    [
        (httpx.ConnectError("refused"), False, False),
        (httpx.ConnectTimeout(""), False, False),
        (httpx.ConnectError("refused"), True, True),
        (httpx.ReadError("cut off"), False, True),
        (httpx.ReadTimeout(""), False, True),
        (httpx.DecodingError("not gzip"), False, True),
        (httpx.LocalProtocolError("an illegal header"), True, False),
        (httpx.UnsupportedProtocol("ftp"), True, False),
    ],
    ids=repr,
)
def test_a_lost_connection_is_made_again_but_one_that_never_was_is_an_error(
    error: httpx.RequestError, reached: bool, waits: bool
) -> None:
    steps = asked(reached=reached)
    if waits:
        steps.fail(error)
        assert isinstance(steps.operation, Pause)
        assert steps.operation.reason.startswith("job x: no answer from http://service (")
    else:
        with pytest.raises(CallFailed, match=r"^job x: no answer from http://service \("):
            steps.fail(error)


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7), ("0.5", 0.5), ("0", None), ("-1", None), ("inf", None), ("Wed, 25 Nov 2026", None)]
)
def test_a_pause_that_is_asked_for_is_one(header: str, seconds: float | None) -> None:
    assert retries.retry_after(answered(503, Retry_After=header)) == seconds
    assert retries.retry_after(answered(503)) is None


def test_the_patience_is_counted_from_the_first_failure_and_anew_after_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: clock.now))
    outage, failure = Outage(Retries(patience_s=10)), CallFailed("away")
    assert outage.pause(failure, 6) == Pause(6, "away")
    clock.now += 6
    assert outage.pause(failure, 4).seconds == 4  # it may last exactly as long as the patience
    clock.now += 4
    with pytest.raises(CallFailed, match="away"):
        outage.pause(failure, 0.1)
    outage.over()
    assert outage.pause(failure, 10).seconds == 10


def test_pauses_grow_to_their_limit_and_begin_anew_after_progress() -> None:
    outage = Outage(Retries(patience_s=1e9, first_s=1, longest_s=30))
    failure = CallFailed("away")
    pauses = [outage.pause(failure).seconds for _ in range(2000)]
    assert all(min(2**i, 30) / 2 <= pause <= min(2**i, 30) for i, pause in enumerate(pauses[:30]))
    assert 15 <= min(pauses[30:]) <= max(pauses) <= 30
    outage.over()
    assert outage.pause(failure).seconds <= 1
