"""Middleware for Serve's own HTTP proxy, which stands before the ingress: what the ingress could not mend any more.

Two headers let any client steer the proxy: `x-request-disconnect-disabled` would keep the GPU working for a client that left, and
`x-request-timeout-seconds` would replace our 504 by the proxy's plain-text 408. And the proxy takes in a body as fast as it comes,
whatever the ingress makes of it.

Serve takes this in by the environment variable ``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.proxy:middlewares``, which must be
set where Ray is started, as ``RYLA_MAX_BODY_BYTES`` (the settings' limits.max_body_bytes); `ryla serve` sets both.
"""

import os

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.body_limit import BodyLimit
from serve.config import Limits
from serve.errors import Problem
from serve.request_id import choose_request_id, send_with_request_id

CONTROL_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")


class ProxyBoundary:
    """Drops the headers that steer the proxy, and sees to it that a request has one id, from the proxy's logs to the answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = MutableHeaders(scope=scope)
        for name in CONTROL_HEADERS:
            del headers[name]
        headers["x-request-id"] = request_id = choose_request_id(headers.get("x-request-id"))

        try:
            # The ingress and the proxy both name the request: one of the two is enough.
            await self._app(scope, receive, send_with_request_id(send, request_id))
        except Problem as problem:
            await problem.response(request_id)(scope, receive, send)


class WholeBody:
    """Lets a body of unknown length in only once it is all there, so that one over the limit is held once, not three times."""

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
    """What Serve's proxy calls."""
    most = int(os.environ.get("RYLA_MAX_BODY_BYTES") or Limits().max_body_bytes)
    # Serve wraps each around what it has: the last is the outermost.
    return [Middleware(WholeBody), Middleware(BodyLimit, most=most), Middleware(ProxyBoundary)]
