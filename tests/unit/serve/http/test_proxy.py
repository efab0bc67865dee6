import pytest
from ray.serve._private import constants
from starlette.types import ASGIApp, Message

from serve.config import Limits
from serve.http.body_limit import body_too_large
from serve.http.problems import Problem
from serve.http.proxy import CONTROL_HEADERS, CONTROL_PREFIX, ProxyBoundary, WholeBody, middlewares
from tests.unit.serve.http.asgi import EchoApp, Exchange, body_messages, http_scope, pass_lifespan
from tests.unit.serve.http.test_middleware import raising

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


async def test_other_errors_are_left_to_the_proxy() -> None:
    with pytest.raises(RuntimeError, match="of the proxy"):
        await ProxyBoundary(raising(RuntimeError("of the proxy")))(http_scope(), Exchange().receive, Exchange().send)


async def test_a_body_of_unknown_length_is_passed_on_once_it_is_complete() -> None:
    exchange = Exchange(body_messages(b"one", b"two", b"three"))
    seen: list[Message] = []

    async def app(_: object, receive: object, __: object) -> None:
        assert exchange.received == 3  # all of it has arrived before the application is called
        assert callable(receive)
        seen.extend([await receive() for _ in range(3)])
        exchange.leave()
        seen.append(await receive())

    await WholeBody(app)(http_scope(headers=CHUNKED), exchange.receive, exchange.send)
    assert seen == [*body_messages(b"one", b"two", b"three"), {"type": "http.disconnect"}]


async def test_a_body_of_known_length_is_passed_on_as_it_arrives() -> None:
    exchange = Exchange(body_messages(b"one", b"two"))
    received = []

    async def app(_: object, receive: object, __: object) -> None:
        assert callable(receive)
        received.append(exchange.received)
        await receive()
        received.append(exchange.received)

    await WholeBody(app)(http_scope(headers={"content-length": "6"}), exchange.receive, exchange.send)
    assert received == [0, 1]


async def test_a_client_that_leaves_in_its_body_ends_it() -> None:
    exchange = Exchange([{"type": "http.request", "body": b"one", "more_body": True}])
    exchange.leave()
    app = EchoApp()
    await WholeBody(app)(http_scope(headers=CHUNKED), exchange.receive, exchange.send)
    assert app.bodies == [b"one"]


@pytest.mark.parametrize("layer", [ProxyBoundary, WholeBody])
async def test_the_lifespan_passes(layer: type[ProxyBoundary | WholeBody]) -> None:
    app = EchoApp()
    await pass_lifespan(layer(app))
    assert app.scopes == [{"type": "lifespan"}]


def wrapped_as_serve_does(app: ASGIApp) -> ASGIApp:
    """Return ``app`` inside the middleware of the proxy."""
    for middleware in middlewares():
        app = middleware.cls(app, *middleware.args, **middleware.kwargs)
    return app


@pytest.mark.parametrize("headers", [{"content-length": "11"}, CHUNKED], ids=["declared", "unknown length"])
async def test_the_proxy_refuses_a_body_over_the_limit_as_a_problem(
    monkeypatch: pytest.MonkeyPatch, headers: dict[str, str]
) -> None:
    monkeypatch.setenv("RYLA_MAX_BODY_BYTES", "10")
    app, exchange = EchoApp(), Exchange(body_messages(b"12345", b"67890", b"1", b"more"))
    scope = http_scope(headers={**headers, "x-request-id": "the-id"})
    await wrapped_as_serve_does(app)(scope, exchange.receive, exchange.send)
    assert (exchange.status, exchange.problem["request_id"]) == (413, "the-id")
    assert "over 10 bytes" in exchange.problem["detail"]
    assert app.scopes == []
    assert exchange.received == (0 if "content-length" in headers else 3)


async def test_the_proxy_passes_a_body_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RYLA_MAX_BODY_BYTES", "10")
    exchange = Exchange(body_messages(b"12345", b"67890"))
    await wrapped_as_serve_does(EchoApp())(http_scope(headers=CHUNKED), exchange.receive, exchange.send)
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
