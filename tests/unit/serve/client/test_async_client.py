"""The asynchronous client: tasks that share it, and streams that are left."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, Literal, cast

import httpx
import pytest

from serve.client import AsyncClient, CallFailed, Client, Retries, async_client, follow
from serve.client.async_client import AsyncJobHandle
from serve.client.client import JobHandle
from serve.client.connection import connection_options
from tests.unit.serve.client.job_answers import FILM, ID, event, raw_record

EVENTS = {"Content-Type": "text/event-stream"}


class Body(httpx.AsyncByteStream):
    """A body in pieces, behind which it ends, breaks off, or waits."""

    def __init__(self, *pieces: bytes, then: Literal["ends", "breaks", "waits"] = "waits") -> None:
        self.pieces = pieces
        self.then = then
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece
        if self.then == "breaks":
            raise httpx.ReadError("cut off")
        if self.then == "waits":
            await asyncio.Event().wait()

    async def aclose(self) -> None:
        self.closed = True


class Service:
    """A service without a network: it answers by method and path, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        name = f"{request.method} {request.url.path}"
        self.asked.append(name)
        answer = self.answers[name]
        if isinstance(answer, list):
            answer = answer.pop(0)
        if isinstance(answer, dict):
            return httpx.Response(200, json=answer)
        return cast(httpx.Response, answer(request) if callable(answer) else answer)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    service = Service()

    def without_network(url: str, **given: Any) -> dict[str, Any]:
        return connection_options(url, **given) | {"transport": httpx.MockTransport(service)}

    monkeypatch.setattr(async_client, "connection_options", without_network)
    return service


def test_both_clients_have_the_same_calls_with_the_same_arguments() -> None:
    for blocking, later in ((Client, AsyncClient), (JobHandle, AsyncJobHandle)):
        for name, call in inspect.getmembers(later, inspect.isfunction):
            if not name.startswith("_"):
                parameters = inspect.signature(call).parameters
                assert parameters == inspect.signature(getattr(blocking, name)).parameters, name


async def test_a_call_returns_the_file_and_is_never_sent_again(service: Service) -> None:
    service.answers = {
        "POST /wan2.6": [
            httpx.Response(200, content=b"film", headers={"Content-Type": "video/mp4"}),
            httpx.Response(503, json={"detail": "the queue is full"}),
        ]
    }
    async with AsyncClient("service:8000/", key="secret") as client:
        assert (client.url, client.has_key) == ("http://service:8000", True)
        assert (await client.call("wan2.6", {"prompt": "a cat"})).data == b"film"
        with pytest.raises(CallFailed, match=r"^wan2\.6: 503 the queue is full$"):
            await client.call("wan2.6", {"prompt": "a cat"})
    assert service.asked == ["POST /wan2.6"] * 2


async def test_a_handle_stands_for_its_job(service: Service) -> None:
    done = event(1, "succeeded")
    service.answers = {
        f"GET /jobs/{ID}": raw_record("running"),
        f"POST /jobs/{ID}/cancel": raw_record("cancelled"),
        f"GET /jobs/{ID}/result": httpx.Response(200, stream=Body(FILM, then="ends")),
        f"GET /jobs/{ID}/events": httpx.Response(200, stream=Body(done), headers=EVENTS),
        f"DELETE /jobs/{ID}": httpx.Response(204),
    }
    async with AsyncClient("http://service") as client:
        job = await client.job(ID)
        assert (job.id, job.record.state) == (ID, "running")
        assert (await job.status()).state == "running"
        assert [record.state async for record in job.subscribe()] == ["succeeded"]
        assert (await job.result()).data == FILM
        assert (await job.cancel()).state == "cancelled"
        assert job.record.state == "running", "the handle keeps what it was made with"
        await client.delete(job.id)
    assert len(service.asked) == 6


async def test_tasks_that_share_a_client_get_their_own_answers(service: Service) -> None:
    for number in range(20):
        service.answers[f"GET /jobs/{number}"] = raw_record(id=number)
    async with AsyncClient("http://service") as client:
        records = await asyncio.gather(*(client.status(str(number)) for number in range(20)))
    assert [record.id for record in records] == [str(number) for number in range(20)]


async def test_events_that_are_left_early_close_their_connection(service: Service) -> None:
    body = Body(event(1), event(2))
    service.answers = {f"GET /jobs/{ID}/events": httpx.Response(200, headers=EVENTS, stream=body)}
    async with AsyncClient("http://service") as client:
        records = client.subscribe(ID)
        async with aclosing(records):
            async for record in records:
                assert (record.state, body.closed) == ("running", False)
                break
        assert body.closed


async def test_a_task_that_is_cancelled_closes_its_connection(service: Service) -> None:
    body = Body(event(1))
    begun = asyncio.Event()

    def begin(_: httpx.Request) -> httpx.Response:
        begun.set()
        return httpx.Response(200, headers=EVENTS, stream=body)

    service.answers = {
        f"GET /jobs/{ID}/result": httpx.Response(409, json={"detail": "not yet"}),
        f"GET /jobs/{ID}": raw_record("running"),
        f"GET /jobs/{ID}/events": begin,
    }
    async with AsyncClient("http://service") as client:
        waiting = asyncio.ensure_future(client.result(ID))
        await begun.wait()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert body.closed


async def test_a_stream_that_breaks_is_closed_before_the_next_request(service: Service) -> None:
    first = Body(event(1), then="breaks")

    def second(request: httpx.Request) -> httpx.Response:
        assert first.closed
        assert request.headers["last-event-id"] == "1"
        return httpx.Response(200, stream=Body(event(2, "succeeded")), headers=EVENTS)

    service.answers = {f"GET /jobs/{ID}/events": [httpx.Response(200, headers=EVENTS, stream=first), second]}
    reasons: list[str] = []
    async with AsyncClient("http://service", retries=Retries(first_s=0), on_retry=reasons.append) as client:
        assert [record.state async for record in client.subscribe(ID)] == ["running", "succeeded"]
    assert reasons == [f"job {ID}: no answer from http://service (cut off)"]


async def test_asking_again_is_no_retry(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "POLL_S", 0)
    service.answers = {
        f"GET /jobs/{ID}/events": httpx.Response(404, json={"detail": "unknown path"}),
        f"GET /jobs/{ID}": [raw_record(), raw_record(), raw_record("succeeded")],
    }
    reasons: list[str] = []
    async with AsyncClient("http://service", on_retry=reasons.append) as client:
        assert [record.state async for record in client.subscribe(ID)] == ["running", "succeeded"]
    assert (reasons, len(service.asked)) == ([], 4)


async def test_a_client_that_is_closed_sends_nothing(service: Service) -> None:
    async with AsyncClient("http://service") as client:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        await client.status(ID)
    assert service.asked == []


async def test_a_failing_list_ends_at_its_first_page(service: Service) -> None:
    service.answers = {"GET /jobs": [httpx.Response(200, content=json.dumps([raw_record()])), httpx.Response(401)]}
    async with AsyncClient("http://service") as client:
        assert [record.id async for record in client.jobs(limit=1)] == [ID]
        with pytest.raises(CallFailed, match="jobs: 401"):
            _ = [record async for record in client.jobs()]
