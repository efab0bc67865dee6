"""Callers who send slowly, or who leave: they take nobody's place and stop the model."""

import asyncio
import logging
import threading

import httpx
import pytest
from starlette.types import Message

from serve.http.examples import payload
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.asgi import Exchange, body_messages, http_scope, until
from tests.unit.serve.http.service import HeldVideoModel, make_service
from tests.unit.serve.loop_clock import LoopClock

MP4 = {"accept": "video/mp4"}
JSON = {"content-type": "application/json"}


async def test_a_slow_upload_counts_towards_the_time_of_the_request() -> None:
    graph = FakeGraph()
    exchange = Exchange([{"type": "http.request", "body": b'{"prompt"', "more_body": True}])
    scope = http_scope("/wan2.6", headers={**JSON, "request-timeout": "0.05"})
    await make_service(graph)(scope, exchange.receive, exchange.send)
    assert (exchange.status, exchange.problem["type"]) == (504, "urn:ryla:problem:timeout")
    assert graph.wan26.requests == []


async def test_slow_uploads_take_nobodys_place() -> None:
    app = make_service(FakeGraph(), ingress={"max_concurrent_requests": 1})
    begun: list[Message] = [{"type": "http.request", "body": b'{"prompt"', "more_body": True}]
    slow = [Exchange(begun) for _ in range(300)]
    uploads = [
        asyncio.ensure_future(app(http_scope("/wan2.6", headers=JSON), exchange.receive, exchange.send)) for exchange in slow
    ]
    await until(lambda: all(exchange.received == 1 for exchange in slow))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        assert (await client.post("/wan2.6", json={"prompt": "x"})).status_code == 200
        assert (await client.get("/readyz")).status_code == 200
    for exchange in slow:
        exchange.leave()
    await asyncio.gather(*uploads)


FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("path", "headers", "begun"),
    [
        ("/wan2.6", JSON, b'{"prompt"'),
        ("/image-faceswap", FORM, b'--b\r\nContent-Disposition: form-data; name="source_image"; filename="a"\r\n\r\nabc'),
        ("/image-faceswap", FORM, b""),
        ("/warm", JSON, b'{"models"'),
    ],
)
async def test_a_client_that_leaves_during_its_upload_is_logged_without_a_traceback(
    path: str, headers: dict[str, str], begun: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    exchange = Exchange([{"type": "http.request", "body": begun, "more_body": True}])
    exchange.leave()
    with caplog.at_level(logging.INFO, "ray.serve"):
        await make_service(FakeGraph())(http_scope(path, headers=headers), exchange.receive, exchange.send)
    assert exchange.status == 499
    (record,) = (record for record in caplog.records if "POST" in record.message)
    assert record.message.startswith(f"499 POST {path}: the client left")
    assert record.exc_info is None


@pytest.mark.parametrize("path", ["/wan2.6", "/wan2.6-i2v-faceswap"])
async def test_a_client_that_leaves_stops_the_model_and_frees_its_place(path: str, caplog: pytest.LogCaptureFixture) -> None:
    model = HeldVideoModel()
    graph = FakeGraph(wan26=model)
    app = make_service(graph, ingress={"max_concurrent_requests": 1})
    body = httpx.Request("POST", "http://service", json=payload(path[1:])).content
    exchange = Exchange(body_messages(body))
    with caplog.at_level(logging.INFO, "ray.serve"):
        request = asyncio.ensure_future(app(http_scope(path, headers=JSON), exchange.receive, exchange.send))
        await model.begun.wait()
        exchange.leave()
        await request
    assert model.stopped
    assert graph.consumer.closed == 1
    assert graph.swapper.swapped == []
    assert exchange.status == 499
    assert f"499 POST {path}: the client left" in caplog.text
    model.let_go()
    again = Exchange(body_messages(body))
    await app(http_scope(path, headers=JSON), again.receive, again.send)
    assert again.status == 200
    again.leave()
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("ending", ["the client leaves", "the time is over"])
async def test_fields_that_take_long_to_check_hold_no_request(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    release, begun = threading.Event(), threading.Event()

    def parse(*_: object, **__: object) -> None:
        begun.set()
        release.wait(60)
        raise ValueError("nobody waits for this any more")

    monkeypatch.setattr("serve.http.schemas.Schema.parse", parse)
    exchange, clock = Exchange(body_messages(b"{}")), LoopClock()
    headers = {**JSON, "request-timeout": "1000"} if ending == "the time is over" else JSON
    request = asyncio.ensure_future(
        make_service(FakeGraph())(http_scope("/wan2.6", headers=headers), exchange.receive, exchange.send)
    )
    try:
        await until(begun.is_set)
        if ending == "the client leaves":
            exchange.leave()
        else:
            clock.move(1000)
        await request
    finally:
        release.set()
    assert exchange.status == (499 if ending == "the client leaves" else 504)
