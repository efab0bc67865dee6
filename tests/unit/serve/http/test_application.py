import asyncio
import hashlib
import logging
from pathlib import Path

import pytest
from ray.serve._private.thirdparty.get_asgi_route_name import extract_route_patterns
from starlette.types import Receive, Scope, Send

from serve.http.application import Service
from serve.http.jobs.listeners import Listeners
from serve.http.reports.access_log import PROBES
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.asgi import Exchange, http_scope, until
from tests.unit.serve.http.service import make_client, make_service

ORIGIN = "https://example.org"


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"anna {hashlib.sha256(b'one').hexdigest()}\n")
    return path


def test_a_service_without_keys_is_open_and_warns_about_it(graph: FakeGraph, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ray.serve"):
        client = make_client(graph)
    assert "no API keys are configured (ingress.api_keys)" in caplog.text
    assert client.get("/limits").status_code == 200
    assert "security" not in client.get("/openapi.json").json()


def test_a_service_with_keys_does_not_warn(graph: FakeGraph, keys: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ray.serve"):
        client = make_client(graph, ingress={"api_keys": keys})
    assert caplog.text == ""
    assert client.get("/limits").status_code == 401


def test_the_key_is_checked_before_the_size_of_the_body(graph: FakeGraph, keys: Path) -> None:
    client = make_client(graph, ingress={"api_keys": keys}, limits={"max_body_bytes": 100})
    large = {"prompt": "x" * 200}
    assert client.post("/wan2.6", json=large).json()["type"] == "urn:ryla:problem:unauthorized"
    refused = client.post("/wan2.6", json=large, headers={"authorization": "Bearer one"})
    assert (refused.status_code, refused.json()["type"]) == (413, "urn:ryla:problem:body-too-large")
    assert graph.wan26.requests == []


def test_a_page_may_read_problems_too(graph: FakeGraph, keys: Path) -> None:
    client = make_client(graph, ingress={"api_keys": keys, "cors_origins": [ORIGIN]}, limits={"max_body_bytes": 100})
    key = {"authorization": "Bearer one"}
    for headers, body, status in (({}, {}, 401), (key, {}, 422), (key, {"prompt": "x" * 200}, 413)):
        response = client.post("/wan2.6", json=body, headers={"origin": ORIGIN, **headers})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == ORIGIN
        assert response.json()["request_id"] == response.headers["x-request-id"]


def test_without_configured_origins_no_page_may_call(graph: FakeGraph) -> None:
    client = make_client(graph)
    response = client.get("/health", headers={"origin": ORIGIN})
    assert "access-control-allow-origin" not in response.headers
    preflight = client.options("/wan2.6", headers={"origin": ORIGIN, "access-control-request-method": "POST"})
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers


def test_serve_finds_the_path_of_each_route_for_its_logs_and_metrics(graph: FakeGraph) -> None:
    patterns = {pattern.path for pattern in extract_route_patterns(make_service(graph))}
    documented = set(make_client(graph).get("/openapi.json").json()["paths"])
    assert documented | set(PROBES) | {"/docs", "/openapi.json"} <= patterns


async def test_requests_that_listen_are_not_at_work_at_any_moment() -> None:
    listeners, go_on = Listeners(limit=10, limit_of_one=10), asyncio.Event()
    seen: list[int] = []

    async def answer(scope: Scope, _: Receive, __: Send) -> None:
        listens = scope["path"] == "/events"
        release = listeners.admit("anna") if listens else None
        seen.append(service.at_work)
        await go_on.wait()
        if release is None:
            raise OSError("the store is away")
        release()

    service = Service(answer, [], listeners)

    def begin(path: str) -> "asyncio.Task[None]":
        exchange = Exchange()
        return asyncio.ensure_future(service(http_scope(path), exchange.receive, exchange.send))

    begun = [begin("/events") for _ in range(3)] + [begin("/wan2.6")] + [begin("/events") for _ in range(3)]
    await until(lambda: len(seen) == len(begun))
    assert (seen, listeners.count) == ([0, 0, 0, 1, 1, 1, 1], 6)
    go_on.set()
    ends = await asyncio.gather(*begun, return_exceptions=True)
    assert [type(end) for end in ends if end is not None] == [OSError]
    assert (service.at_work, listeners.count) == (0, 0)
