"""What Serve's proxy answers where the ingress answers nothing, with the messages that it sends."""

from collections.abc import Mapping, Sequence

import pytest
from ray.exceptions import ActorDiedError
from ray.serve._private.http_util import (
    convert_object_to_asgi_messages,
    get_http_response_status,
    send_http_response_on_exception,
)
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.http.protocol.plain_errors import PlainErrors
from serve.problems import Problem
from tests.unit.serve.http.asgi import EchoApp, Exchange, body_messages, http_scope, pass_lifespan


def sending(messages: Sequence[Message], *, reads_until_left: bool = False) -> ASGIApp:
    """Return an application that answers with ``messages``."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect" and reads_until_left:
            pass
        for message in messages:
            await send(message)

    return app


def proxys_answer(error: BaseException) -> list[Message]:
    """Return what Serve's proxy sends when its call of the ingress fails."""
    return send_http_response_on_exception(get_http_response_status(error, 60, "the-id"), False)


async def problem_of(messages: Sequence[Message]) -> Problem:
    exchange = Exchange()
    with pytest.raises(Problem) as raised:
        await PlainErrors(sending(messages))(http_scope(), exchange.receive, exchange.send)
    assert exchange.sent == [], "nothing of the plain-text answer is sent"
    return raised.value


@pytest.mark.parametrize(
    "error",
    [ActorDiedError(), RuntimeError("of the proxy"), ValueError("named actor not found")],
    ids=lambda e: type(e).__name__,
)
async def test_an_ingress_that_is_lost_is_a_502_that_asks_to_try_again(error: Exception) -> None:
    """Serve sends no message at all, and uvicorn would send a plain-text 500."""
    assert proxys_answer(error) == []
    problem = await problem_of(proxys_answer(error))
    assert (problem.status, problem.slug, problem.headers) == (502, "replica-lost", {"Retry-After": "1"})


class _NotAvailable(DeploymentUnavailableError):
    message = "the deployment Ingress of the application failed"

    def __init__(self) -> None:
        Exception.__init__(self)


@pytest.mark.parametrize(
    ("error", "status", "slug", "headers"),
    [
        (BackPressureError(num_queued_requests=9, max_queued_requests=8), 503, "unavailable", {"Retry-After": "1"}),
        (_NotAvailable(), 503, "unavailable", {"Retry-After": "1"}),
        (TimeoutError(), 504, "timeout", {}),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_every_plain_text_error_of_the_proxy_is_a_problem(
    error: Exception, status: int, slug: str, headers: Mapping[str, str]
) -> None:
    problem = await problem_of(proxys_answer(error))
    assert (problem.status, problem.slug, problem.headers) == (status, slug, headers)
    assert "Ingress" not in problem.detail


@pytest.mark.parametrize(("given", "kept"), [(b"7", "7"), (b"soon", "1")])
async def test_the_proxys_time_to_try_again_is_kept(given: bytes, kept: str) -> None:
    messages = convert_object_to_asgi_messages("full", status_code=503, extra_headers=[(b"retry-after", given)])
    assert (await problem_of(messages)).headers == {"Retry-After": kept}


@pytest.mark.parametrize(
    ("routes", "status", "slug", "headers"),
    [
        ({"/": "ryla"}, 404, "not-found", {}),
        ({"/films": "ryla", "/": "other"}, 404, "not-found", {}),
        ({}, 503, "unavailable", {"Retry-After": "5"}),  # the application is being deployed
        ("Route table is not populated yet.", 503, "unavailable", {"Retry-After": "5"}),  # the proxy has just started
    ],
)
async def test_a_path_without_an_application_is_a_404_unless_the_service_is_starting(
    routes: object, status: int, slug: str, headers: Mapping[str, str]
) -> None:
    calls: list[tuple[str, str]] = []

    async def proxy(scope: Scope, receive: Receive, send: Send) -> None:
        calls.append((scope["method"], scope["path"]))
        listed = scope["path"] == "/-/routes"
        answer = routes if listed else "Path '/wan2.6' not found. Ping http://.../-/routes for available routes."
        for message in convert_object_to_asgi_messages(answer, status_code=200 if listed else 404):
            await send(message)

    exchange = Exchange(body_messages(b"a prompt"))
    with pytest.raises(Problem) as raised:
        await PlainErrors(proxy)(http_scope("/wan2.6"), exchange.receive, exchange.send)
    problem = raised.value
    assert (problem.status, problem.slug, problem.headers) == (status, slug, headers)
    assert (exchange.sent, calls) == ([], [("POST", "/wan2.6"), ("GET", "/-/routes")])


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes"])
async def test_serves_own_paths_keep_their_answers(path: str) -> None:
    messages = convert_object_to_asgi_messages("This node is being drained.", status_code=503)
    exchange = Exchange()
    await PlainErrors(sending(messages))(http_scope(path, "GET"), exchange.receive, exchange.send)
    assert (exchange.status, exchange.body) == (503, b"This node is being drained.")


@pytest.mark.parametrize(
    ("status", "content_type"), [(200, b"text/plain"), (503, b"application/problem+json"), (200, b"video/mp4")]
)
async def test_answers_of_the_ingress_are_passed_on_as_they_come(status: int, content_type: bytes) -> None:
    messages: list[Message] = [
        {"type": "http.response.start", "status": status, "headers": [[b"content-type", content_type]]},
        {"type": "http.response.body", "body": b"one", "more_body": True},
        {"type": "http.response.body", "body": b"two"},
    ]
    exchange = Exchange()
    await PlainErrors(sending(messages))(http_scope(), exchange.receive, exchange.send)
    assert exchange.sent == messages


async def test_an_answer_that_breaks_off_is_left_as_it_is() -> None:
    """Its status is already with the caller, who sees that the connection ends early."""
    messages: list[Message] = [
        {"type": "http.response.start", "status": 200, "headers": []},
        {"type": "http.response.body", "body": b"half", "more_body": True},
    ]
    exchange = Exchange()
    await PlainErrors(sending(messages))(http_scope(), exchange.receive, exchange.send)
    assert exchange.sent == messages


async def test_a_client_that_has_left_is_not_taken_for_a_lost_ingress() -> None:
    exchange = Exchange()
    exchange.leave()
    await PlainErrors(sending([], reads_until_left=True))(http_scope(), exchange.receive, exchange.send)
    assert exchange.sent == []


async def test_requests_reach_the_ingress_unchanged() -> None:
    app, exchange, scope = EchoApp(), Exchange(body_messages(b"one", b"two")), http_scope("/wan2.6", headers={"accept": "a/b"})
    await PlainErrors(app)(dict(scope), exchange.receive, exchange.send)
    assert (app.scopes, app.bodies, exchange.body) == ([scope], [b"onetwo"], b"onetwo")


async def test_other_scopes_are_passed_on() -> None:
    await pass_lifespan(PlainErrors(EchoApp()))
