import hashlib
import logging
from collections.abc import Mapping
from pathlib import Path

import pytest
from ray.serve._private import constants
from starlette.types import Scope

from serve.config import Limits, ProxySettings
from serve.http.protocol.body_limit import body_too_large
from serve.http.protocol.body_room import no_room
from serve.http.protocol.bounded_protocol import EXTENSION, BoundedProtocol
from serve.http.protocol.plain_errors import SERVE_PREFIX
from serve.http.proxy import CONTROL_HEADERS, CONTROL_PREFIX, ProxyBoundary, RequireBoundedConnection, middlewares
from serve.http.reports.access_log import is_worth_a_line
from serve.problems import Problem
from serve.route_table import Row
from serve.telemetry import metrics
from tests.unit.recorded_metrics import recorded_metrics
from tests.unit.serve.http.asgi import EchoApp, Exchange, body_messages, http_scope, pass_lifespan, raising
from tests.unit.serve.http.wrapped_proxy import wrapped_as_serve_does

KEY = "a good key"
CHUNKED = {"transfer-encoding": "chunked"}


async def test_headers_that_steer_the_proxy_are_dropped() -> None:
    app = EchoApp()
    headers = {**dict.fromkeys(CONTROL_HEADERS, "?1"), "accept": "video/mp4", "X-Request-Id": "the-id"}
    exchange = Exchange()
    await ProxyBoundary(app)(http_scope(headers=headers), exchange.receive, exchange.send)
    received = {name.decode(): value.decode() for name, value in app.scopes[0]["headers"]}
    assert received == {"accept": "video/mp4", "x-request-id": "the-id"}


@pytest.mark.parametrize(
    "name", ["serve_multiplexed_model_id", "Serve-Multiplexed-Model-Id", "x_session_id", "x-serve-router-a"]
)
async def test_a_header_that_steers_is_dropped_in_any_spelling_and_with_any_bytes(name: str) -> None:
    app = EchoApp()
    scope = http_scope(headers={"x-request-id": "the-id"})
    scope["headers"] = [*scope["headers"], (name.encode(), b"\xff")]
    exchange = Exchange()
    await ProxyBoundary(app)(scope, exchange.receive, exchange.send)
    assert [sent for sent, _ in app.scopes[0]["headers"]] == [b"x-request-id"]


def test_every_request_header_that_ray_reads_is_dropped() -> None:
    """A new version of Ray may read more: this finds the constants by their names."""
    names = {
        value.lower().replace("_", "-")
        for constant, value in vars(constants).items()
        if isinstance(value, str)
        and constant.startswith("SERVE_")
        and constant.endswith(("_HEADER", "_HEADER_PREFIX", "_MODEL_ID", "_SESSION_ID"))
    }
    assert {"x-request-timeout-seconds", "x-session-id", "serve-multiplexed-model-id"} <= names
    assert names - CONTROL_HEADERS == {"x-request-id", CONTROL_PREFIX}


async def test_proxy_ingress_and_answer_share_one_id() -> None:
    app = EchoApp(headers={"x-request-id": "of the ingress"})
    for sent, kept in (("the-id", True), ("no spaces, please", False), (None, False)):
        exchange = Exchange()
        scope = http_scope(headers={} if sent is None else {"x-request-id": sent})
        await ProxyBoundary(app)(scope, exchange.receive, exchange.send)
        (answered,) = exchange.headers.getlist("x-request-id")
        (forwarded,) = (value.decode() for name, value in app.scopes[-1]["headers"] if name == b"x-request-id")
        assert answered == forwarded
        assert (answered == sent) is kept


async def test_a_problem_of_an_inner_layer_is_answered() -> None:
    exchange = Exchange()
    scope = http_scope(headers={"x-request-id": "the-id"})
    await ProxyBoundary(raising(body_too_large(10)))(scope, exchange.receive, exchange.send)
    assert (exchange.status, exchange.problem["type"]) == (413, "urn:ryla:problem:body-too-large")
    assert exchange.problem["request_id"] == exchange.headers["x-request-id"] == "the-id"
    assert exchange.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("method", "path", "problem", "endpoint", "outcome"),
    [
        ("POST", "/wan2.6", body_too_large(10), "wan2.6", "refused"),
        ("POST", "/image-faceswap", Problem(401, "unauthorized", "send your key"), "image-faceswap", "refused"),
        ("POST", "/wan22-i2v", no_room(10), "wan22-i2v", "busy"),
        ("POST", "/wan2.6-i2v", Problem(504, "timeout", "too late"), "wan2.6-i2v", "timeout"),
        ("POST", "/v1/videos", Problem(502, "replica-lost", "lost"), "other", "failed"),
        ("POST", "/video-faceswap", Problem(408, "too-slow", "too slow"), "batch-video-faceswap", "refused"),
        ("GET", "/wan2.6", body_too_large(10), None, ""),
        ("POST", "/verify", body_too_large(10), None, ""),
        ("POST", "/a/path/of/an/attacker", body_too_large(10), None, ""),
    ],
)
async def test_what_the_proxy_refuses_is_counted_as_by_the_ingress(
    method: str, path: str, problem: Problem, endpoint: str | None, outcome: str
) -> None:
    exchange = Exchange()
    with recorded_metrics() as recorded:
        await ProxyBoundary(raising(problem))(http_scope(path, method), exchange.receive, exchange.send)
        await ProxyBoundary(EchoApp())(http_scope(path, method), Exchange().receive, Exchange().send)
    assert recorded.total(metrics.REQUESTS) == (0 if endpoint is None else 1)
    if endpoint is not None:
        assert recorded.values(metrics.REQUESTS, endpoint=endpoint, outcome=outcome) == [1]


async def test_other_errors_are_left_to_the_proxy() -> None:
    with pytest.raises(RuntimeError, match="of the proxy"):
        await ProxyBoundary(raising(RuntimeError("of the proxy")))(http_scope(), Exchange().receive, Exchange().send)


@pytest.mark.parametrize("layer", [ProxyBoundary, RequireBoundedConnection])
async def test_the_lifespan_passes(layer: type[ProxyBoundary | RequireBoundedConnection]) -> None:
    app = EchoApp()
    await pass_lifespan(layer(app))
    assert app.scopes == [{"type": "lifespan"}]


def bounded_scope(path: str = "/", method: str = "POST", headers: Mapping[str, str] | None = None) -> Scope:
    """Return the scope of a request that came through a connection with limits."""
    return {**http_scope(path, method, headers), "extensions": {EXTENSION: {}}}


def test_the_proxy_logs_no_probe_that_succeeds() -> None:
    middlewares()
    assert is_worth_a_line in logging.getLogger("ray.serve").filters


@pytest.mark.parametrize("headers", [{"content-length": "11"}, CHUNKED], ids=["declared", "unknown length"])
async def test_the_proxy_refuses_a_body_over_the_limit_as_a_problem(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setenv("RYLA_MAX_BODY_BYTES", "10")
    app, exchange = EchoApp(), Exchange(body_messages(b"12345", b"67890", b"1", b"more"))
    scope = bounded_scope(headers={**headers, "x-request-id": "the-id"})
    await wrapped_as_serve_does(app)(scope, exchange.receive, exchange.send)
    assert (exchange.status, exchange.problem["request_id"]) == (413, "the-id")
    assert "over 10 bytes" in exchange.problem["detail"]
    assert app.scopes == []
    assert exchange.received == (0 if "content-length" in headers else 3)


async def test_the_proxy_passes_a_body_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RYLA_MAX_BODY_BYTES", "10")
    exchange = Exchange(body_messages(b"12345", b"67890"))
    await wrapped_as_serve_does(EchoApp())(bounded_scope(headers=CHUNKED), exchange.receive, exchange.send)
    assert exchange.body == b"1234567890"


@pytest.mark.parametrize("value", [None, ""])
async def test_without_its_variable_the_proxy_has_the_default_limit(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("RYLA_MAX_BODY_BYTES", raising=False)
    else:
        monkeypatch.setenv("RYLA_MAX_BODY_BYTES", value)
    (limit,) = (middleware for middleware in middlewares() if getattr(middleware.cls, "__name__", "") == "BodyLimit")
    over = http_scope(headers={"content-length": str(Limits().max_body_bytes + 1)})
    with pytest.raises(Problem, match=f"over {Limits().max_body_bytes} bytes"):
        await limit.cls(EchoApp(), *limit.args, **limit.kwargs)(over, Exchange().receive, Exchange().send)


async def test_a_connection_without_limits_gets_no_answer_but_a_500(caplog: pytest.LogCaptureFixture) -> None:
    app, exchange = EchoApp(), Exchange()
    await wrapped_as_serve_does(app)(http_scope("/readyz", "GET"), exchange.receive, exchange.send)
    assert (exchange.status, exchange.problem["type"]) == (500, "urn:ryla:problem:internal")
    assert app.scopes == []
    assert "its connections have no limits" in caplog.text


def test_the_settings_of_the_environment_are_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BoundedProtocol, "settings", ProxySettings())
    monkeypatch.setenv("RYLA_PROXY", '{"max_head_bytes": 4321, "stall_timeout_s": 7}')
    (whole,) = (middleware for middleware in middlewares() if "settings" in middleware.kwargs)
    assert BoundedProtocol.settings == whole.kwargs["settings"] == ProxySettings(max_head_bytes=4321, stall_timeout_s=7)


@pytest.fixture
def _keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    path.write_text(f"someone {hashlib.sha256(KEY.encode()).hexdigest()}\n")
    monkeypatch.setenv("RYLA_API_KEYS", str(path))


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize("authorization", [None, "Bearer another key", "Basic a good key"])
async def test_without_a_key_no_body_is_read(authorization: str | None, caplog: pytest.LogCaptureFixture) -> None:
    app, exchange = EchoApp(), Exchange(body_messages(b"body"))
    headers = {**CHUNKED, **({} if authorization is None else {"authorization": authorization})}
    with caplog.at_level(logging.INFO, "ray.serve"):
        await wrapped_as_serve_does(app)(bounded_scope("/wan2.6", headers=headers), exchange.receive, exchange.send)
    assert (exchange.status, exchange.problem["type"]) == (401, "urn:ryla:problem:unauthorized")
    assert exchange.headers["www-authenticate"].startswith("Bearer")
    assert exchange.received == 0
    assert app.scopes == []
    assert "401 POST /wan2.6" in caplog.text


@pytest.mark.usefixtures("_keys")
async def test_with_a_key_a_request_passes() -> None:
    app, exchange = EchoApp(), Exchange(body_messages(b"body"))
    scope = bounded_scope("/wan2.6", headers={**CHUNKED, "authorization": f"Bearer {KEY}"})
    await wrapped_as_serve_does(app)(scope, exchange.receive, exchange.send)
    assert (exchange.status, exchange.body) == (200, b"body")


@pytest.mark.usefixtures("_keys")
@pytest.mark.parametrize(
    "path", [*(row.path for row in Row if row.key == "no key"), "/docs/assets/swagger-ui.css", f"{SERVE_PREFIX}healthz"]
)
async def test_probes_and_documentation_need_no_key(path: str) -> None:
    app, exchange = EchoApp(), Exchange()
    await wrapped_as_serve_does(app)(bounded_scope(path, "GET"), exchange.receive, exchange.send)
    assert exchange.status == 200


@pytest.mark.usefixtures("_keys")
async def test_pages_of_configured_origins_can_ask_first_and_read_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RYLA_CORS_ORIGINS", "https://one.example https://two.example")
    app = wrapped_as_serve_does(EchoApp())
    origin = {"origin": "https://two.example"}
    preflight, refused = Exchange(), Exchange()
    asks = {**origin, "access-control-request-method": "POST"}
    await app(bounded_scope("/wan2.6", "OPTIONS", asks), preflight.receive, preflight.send)
    assert preflight.status == 200
    await app(bounded_scope("/wan2.6", headers=origin), refused.receive, refused.send)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (401, "https://two.example")
