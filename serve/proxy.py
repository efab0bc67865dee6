"""Middleware for Serve's own HTTP proxy, which stands before the ingress and lets any client steer it by two headers.

`x-request-disconnect-disabled` would keep the GPU working for a client that left, and `x-request-timeout-seconds` would replace our
504 by the proxy's plain-text 408. Serve takes this in by the environment variable
``RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=serve.proxy:middlewares``, which must be set where Ray is started.
"""

import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTROL_HEADERS = ("x-request-disconnect-disabled", "x-request-timeout-seconds")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def choose_request_id(sent: str | None) -> str:
    """The id that a request came with, if it is a decent one, else a new one."""
    return sent if sent is not None and _REQUEST_ID.fullmatch(sent) else uuid.uuid4().hex


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

        async def send_with_one_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                sent = MutableHeaders(scope=message)
                del sent["x-request-id"]  # the ingress and the proxy have both set it
                sent["x-request-id"] = request_id
            await send(message)

        await self._app(scope, receive, send_with_one_id)


def middlewares() -> list[Middleware]:
    """What Serve's proxy calls."""
    return [Middleware(ProxyBoundary)]
