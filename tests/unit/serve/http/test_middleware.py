import asyncio
import gc
import logging
import weakref

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.errors import RequestRefused
from serve.http.middleware import Cors, RequestBoundary, problem_of_status
from serve.jobs.results.headers import EXPOSED_HEADERS
from serve.problems import Problem, unavailable
from tests.unit.serve.http.asgi import EchoApp, Exchange, http_scope, pass_lifespan, raising

ORIGIN = "https://example.org"
PREFLIGHT = {"origin": ORIGIN, "access-control-request-method": "POST"}


async def answer_of(app: ASGIApp, path: str = "/wan2.6") -> Exchange:
    """Return the answer of ``app`` behind the boundary."""
    exchange = Exchange()
    await RequestBoundary(app)(http_scope(path, headers={"x-request-id": "the-id"}), exchange.receive, exchange.send)
    return exchange


async def test_an_answer_carries_the_id_of_its_request() -> None:
    app = EchoApp(headers={"X-Request-Id": "another"})
    exchange = await answer_of(app)
    assert exchange.headers.getlist("x-request-id") == ["the-id"]
    assert app.scopes[0]["state"]["request_id"] == "the-id"
    await pass_lifespan(RequestBoundary(app))
    assert app.scopes[1] == {"type": "lifespan"}


async def test_a_refusal_becomes_a_problem_and_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        exchange = await answer_of(raising(RequestRefused("prompt", "is too long")))
    assert exchange.status == 422
    assert exchange.problem["errors"] == [{"pointer": "#/prompt", "detail": "is too long"}]
    assert exchange.problem["request_id"] == exchange.headers["x-request-id"] == "the-id"
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    assert record.getMessage() == "422 POST /wan2.6: invalid-field in `prompt` (request id the-id)"


async def test_a_problem_of_ours_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        exchange = await answer_of(raising(unavailable("the model sleeps", 5)))
    assert (exchange.status, exchange.headers["retry-after"]) == (503, "5")
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_an_unknown_error_is_logged_whole_and_shown_not_at_all(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        exchange = await answer_of(raising(RuntimeError("a secret")))
    assert (exchange.status, exchange.problem["type"]) == (500, "urn:ryla:problem:internal")
    assert b"secret" not in exchange.body
    assert "quote the request id" in exchange.problem["detail"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert str(record.exc_info[1]) == "a secret"
    assert "the-id" in record.getMessage()


async def test_a_client_that_left_is_a_499(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        exchange = await answer_of(raising(ClientDisconnect()))
    assert (exchange.status, exchange.problem["type"]) == (499, "urn:ryla:problem:client-left")
    assert [record.levelno for record in caplog.records] == [logging.INFO]


async def test_a_cancelled_request_is_logged_and_stays_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"), pytest.raises(asyncio.CancelledError):
        await answer_of(raising(asyncio.CancelledError()))
    assert "499 POST /wan2.6: the client left (request id the-id)" in caplog.text


async def test_an_error_after_the_answer_has_begun_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("in the middle")

    exchange = Exchange()
    with caplog.at_level(logging.ERROR, "ray.serve"), pytest.raises(RuntimeError, match="in the middle"):
        await RequestBoundary(app)(http_scope(), exchange.receive, exchange.send)
    assert [message["type"] for message in exchange.sent] == ["http.response.start"]
    assert "500 POST /" in caplog.text


class Upload:
    """Something large in the frame of a request."""


@pytest.mark.parametrize("wrapped", [False, True])
async def test_the_frames_of_a_failed_request_are_freed_at_once(wrapped: bool) -> None:
    """A cycle of error, traceback and frame would keep an upload until the next collection."""
    alive: list[weakref.ref[Upload]] = []

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        upload = Upload()
        alive.append(weakref.ref(upload))
        try:
            raise RequestRefused("source", "is broken")
        except RequestRefused as refused:
            error = refused  # the frame refers to the error, whose traceback refers to the frame
        if wrapped:
            raise Problem(422, "invalid-field", "broken") from error
        raise error

    gc.disable()
    try:
        exchange = await answer_of(app)
        assert exchange.status == 422
        assert alive[0]() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("error", "status", "slug", "detail"),
    [
        (HTTPException(404), 404, "not-found", "unknown path: /nowhere; /docs lists the paths"),
        (HTTPException(400, "cut off"), 400, "bad-request", "cut off"),
        (HTTPException(413, "too much"), 413, "bad-request", "too much"),
        (HTTPException(422, "wrong"), 422, "bad-request", "wrong"),
        (HTTPException(418, "a teapot"), 400, "bad-request", "a teapot"),
        (
            HTTPException(405, headers={"Allow": "GET, HEAD"}),
            405,
            "method-not-allowed",
            "POST is not allowed here; allowed: GET, HEAD",
        ),
    ],
)
async def test_refusals_of_the_router_become_problems(
    error: HTTPException, status: int, slug: str, detail: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        exchange = await answer_of(raising(error), "/nowhere")
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, f"{status} POST an unknown path: {slug} (request id the-id)")
    ]
    assert exchange.status == exchange.problem["status"] == status
    assert exchange.problem["type"] == f"urn:ryla:problem:{slug}"
    assert exchange.problem["detail"] == detail
    assert exchange.headers.get("allow") == ("GET, HEAD" if status == 405 else None)


async def test_a_long_path_is_cut_in_the_detail_and_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    path = "/" + "x" * 9000
    assert len(problem_of_status(HTTPException(404), http_scope(path)).detail) < 300
    with caplog.at_level(logging.INFO, "ray.serve"):
        await answer_of(raising(HTTPException(404)), path)
    assert len(caplog.records[0].getMessage()) < 600


async def test_a_path_cannot_forge_a_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        exchange = await answer_of(raising(HTTPException(404)), "/a\n500 POST /b")
    assert exchange.problem["detail"].startswith("unknown path: /a\n500")
    assert caplog.records[0].getMessage().startswith("404 POST an unknown path: not-found (")


def test_an_unknown_path_and_a_wrong_method_are_problems(client: TestClient) -> None:
    unknown = client.get("/nothing-here", headers={"x-request-id": "a-1"})
    assert (unknown.status_code, unknown.json()["type"]) == (404, "urn:ryla:problem:not-found")
    assert unknown.json()["request_id"] == unknown.headers["x-request-id"] == "a-1"
    wrong = client.get("/wan2.6")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["type"] == "urn:ryla:problem:method-not-allowed"
    assert client.post("/health").headers["allow"] in ("GET, HEAD", "HEAD, GET")


async def answer_to(headers: dict[str, str], method: str = "OPTIONS", origins: tuple[str, ...] = (ORIGIN,)) -> Exchange:
    """Return the answer of the CORS layer."""
    exchange = Exchange()
    await Cors(EchoApp(), origins)(http_scope("/wan2.6", method, headers), exchange.receive, exchange.send)
    return exchange


async def test_a_page_of_a_configured_origin_may_call() -> None:
    preflight = await answer_to({**PREFLIGHT, "access-control-request-headers": "authorization, x-custom"})
    assert preflight.status == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "authorization, x-custom"
    answer = await answer_to({"origin": ORIGIN}, "POST")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-expose-headers"] == ", ".join(EXPOSED_HEADERS)
    assert "X-Seed" in EXPOSED_HEADERS


async def test_every_origin_may_call_with_an_asterisk() -> None:
    assert (await answer_to(PREFLIGHT, origins=("*",))).headers["access-control-allow-origin"] == "*"


async def test_a_refused_preflight_request_is_a_problem(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        refused = await answer_to({**PREFLIGHT, "origin": "https://evil.example", "x-request-id": "a-1"})
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.INFO, "400 OPTIONS /wan2.6: cors (request id a-1)")
    ]
    assert (refused.status, refused.problem["type"]) == (400, "urn:ryla:problem:cors")
    assert refused.problem["request_id"] == "a-1"
    assert "origin" in refused.problem["detail"]
    assert "access-control-allow-origin" not in refused.headers
    method = await answer_to({**PREFLIGHT, "access-control-request-method": "PATCH"})
    assert (method.status, "method" in method.problem["detail"]) == (400, True)
    other = await answer_to({"origin": "https://evil.example"}, "POST")
    assert "access-control-allow-origin" not in other.headers
