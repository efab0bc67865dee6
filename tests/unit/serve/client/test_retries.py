"""When requests are sent again, and for how long, with both clients."""

import pytest

from serve.client import CallFailed, Retries
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
