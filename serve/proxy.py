"""Middleware for Serve's own HTTP proxy, which stands before the ingress and lets any client steer it by two headers.

`x-request-disconnect-disabled` would keep the GPU working for a client that left, and `x-request-timeout-seconds` would replace our
504 by the proxy's plain-text 408. Serve takes this in by the environment variable
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.proxy:middlewares``, which must be set where Ray is started.
"""

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

CONTROL_HEADERS = frozenset({b"x-request-disconnect-disabled", b"x-request-timeout-seconds"})


class StripControlHeaders:
    """Drops the headers that steer the proxy."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "headers" in scope:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() not in CONTROL_HEADERS]
        await self._app(scope, receive, send)


def middlewares() -> list[Middleware]:
    """What Serve's proxy calls."""
    return [Middleware(StripControlHeaders)]
