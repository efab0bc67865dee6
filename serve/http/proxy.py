"""Middleware for Serve's own HTTP proxy: what must be fixed before a request reaches the ingress.

Some headers let any client steer the proxy. `x-request-disconnect-disabled` keeps a GPU working for
a client that has left, `x-request-timeout-seconds` replaces our 504 problem by the proxy's
plain-text 408, and others choose the replica, or end in a plain-text 500 if they are not UTF-8. The
proxy also buffers a body as fast as it arrives, whatever the ingress does with it.

Serve loads this module by the environment variable
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.http.proxy:middlewares``. That variable and
``RYLA_MAX_BODY_BYTES`` (the setting ``limits.max_body_bytes``) must be set where Ray is started;
`ryla serve` sets both.
"""

import os

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.config import Limits
from serve.http.body_limit import BodyLimit
from serve.http.problems import Problem
from serve.http.request_id import choose_request_id, send_with_request_id

IMPORT_PATH = "serve.http.proxy:middlewares"
CONTROL_HEADERS = frozenset(
    {
        "x-request-disconnect-disabled",
        "x-request-timeout-seconds",
        "serve-multiplexed-model-id",
        os.environ.get("RAY_SERVE_SESSION_ID_HEADER_KEY", "x-session-id").lower().replace("_", "-"),
    }
)
"""Request headers that steer the proxy or its choice of a replica. Ray reads `_` and `-` alike."""
CONTROL_PREFIX = "x-serve-router-"
"""How the names of headers for Ray's own request router begin."""


class ProxyBoundary:
    """Drops the headers that steer the proxy and gives each request one id for all logs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["headers"] = [(name, value) for name, value in scope["headers"] if not _steers(name)]
        headers = MutableHeaders(scope=scope)
        headers["x-request-id"] = request_id = choose_request_id(headers.get("x-request-id"))

        try:
            # The ingress and the proxy both name the request; one of the two headers is enough.
            await self._app(scope, receive, send_with_request_id(send, request_id))
        except Problem as problem:
            await problem.response(request_id)(scope, receive, send)


def _steers(name: bytes) -> bool:
    normalized = name.decode("latin-1").lower().replace("_", "-")
    return normalized in CONTROL_HEADERS or normalized.startswith(CONTROL_PREFIX)


class WholeBody:
    """Passes on a body of unknown length only once it is complete.

    A body over the limit is then held once and not three times.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "transfer-encoding" not in MutableHeaders(scope=scope):
            await self._app(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body", False):
            messages.append(await receive())
        messages.reverse()

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


def middlewares() -> list[Middleware]:
    """Return the middleware that Serve's proxy wraps around itself."""
    max_bytes = int(os.environ.get("RYLA_MAX_BODY_BYTES") or Limits().max_body_bytes)
    # Serve wraps them in this order: the last one is the outermost.
    return [Middleware(WholeBody), Middleware(BodyLimit, max_bytes=max_bytes), Middleware(ProxyBoundary)]
