"""The layers around every request: its id, a problem for whatever fails, and CORS."""

import asyncio
import logging

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.telemetry.origin import Origin, working_for
from serve.http.answer_headers import send_with_headers
from serve.http.head_limits import check_head
from serve.http.reports.http_span import http_span, with_status
from serve.http.reports.problem_log import call_of, client_left, log_problem
from serve.http.request_id import choose_request_id, send_with_request_id
from serve.jobs.results.headers import EXPOSED_HEADERS
from serve.problems import Problem, problem_of

logger = logging.getLogger("ray.serve")


class RequestBoundary:
    """The outermost layer: gives each request an id and turns whatever is raised into a problem."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = choose_request_id(headers.get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        with working_for(Origin(request_id)), http_span(scope, headers.get("traceparent", "")) as span:
            await self._answer(scope, receive, send=send_with_headers(with_status(send, span), scope), request_id=request_id)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Pass the request on, and answer with a problem if it fails."""
        # This lets Starlette's router raise its refusals instead of answering in plain text.
        scope["app"] = self
        started = False
        named = send_with_request_id(send, request_id)

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await named(message)

        try:
            check_head(scope)
            await self._app(scope, receive, watched)
        except asyncio.CancelledError:
            log_problem(client_left(), scope, request_id)
            raise
        except Exception as error:
            response = self._problem(error, scope, request_id).response(request_id)
            if started:
                raise
            _release_frames(error)
            await response(scope, receive, send)

    @staticmethod
    def _problem(error: Exception, scope: Scope, request_id: str) -> Problem:
        """Return the problem that ``error`` means to the caller, and log it."""
        problem: Problem | None
        if isinstance(error, HTTPException):
            problem = problem_of_status(error, scope)
        elif isinstance(error, ClientDisconnect):
            problem = client_left()
        else:
            problem = problem_of(error)
        if problem is None:
            logger.error("500 %s (request id %s)", call_of(scope), request_id, exc_info=error)
            return Problem(500, "internal", "the service failed; quote the request id when you report it")
        log_problem(problem, scope, request_id)
        return problem


def _release_frames(error: BaseException) -> None:
    """Drop the tracebacks of ``error`` and of the errors behind it.

    Tasks and frames refer to the error, and its traceback refers to their frames. That cycle would
    keep a large upload on disk until the next garbage collection.
    """
    errors: list[BaseException | None] = [error]
    while errors:
        if (current := errors.pop()) is not None and current.__traceback__ is not None:
            current.__traceback__ = None
            errors += [current.__cause__, current.__context__]


def problem_of_status(error: HTTPException, scope: Scope) -> Problem:
    """Return the problem for a refusal of Starlette's own, such as an unknown path or method."""
    if error.status_code == 404:
        return Problem(404, "not-found", f"unknown path: {scope['path'][:200]}; /docs lists the paths")
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{scope['method']} is not allowed here; allowed: {allowed}"
        return Problem(405, "method-not-allowed", detail, headers={"Allow": allowed})
    return Problem(error.status_code if error.status_code in (400, 413, 422) else 400, "bad-request", str(error.detail))


class _PreflightRefused(Exception):
    """A preflight request is refused; ``detail`` is Starlette's text."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Cors(CORSMiddleware):
    """Starlette's CORS middleware, whose plain-text refusals become problems."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE", "HEAD"],
            allow_headers=["*"],
            expose_headers=EXPOSED_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request; a preflight request that is refused is logged with its path."""
        try:
            await super().__call__(scope, receive, send)
        except _PreflightRefused as refused:
            problem = Problem(400, "cors", refused.detail)
            request_id = choose_request_id(Headers(scope=scope).get("x-request-id"))
            log_problem(problem, scope, request_id)
            await problem.response(request_id)(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return the answer to a preflight request, or raise what ``__call__`` answers."""
        response = super().preflight_response(request_headers)
        if response.status_code >= 400:
            raise _PreflightRefused(bytes(response.body).decode())
        return response
