"""Refuses bodies that are too large, in the ingress and before it in Serve's proxy."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.problems import Problem


class BodyLimit:
    """Middleware that refuses a body over ``max_bytes`` with a 413 problem.

    A Content-Length that is too large is refused before a byte is read, and any other body as soon
    as it exceeds the limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > self._max_bytes:
            raise body_too_large(self._max_bytes)
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                raise body_too_large(self._max_bytes)
            return message

        await self._app(scope, limited, send)


def body_too_large(max_bytes: int) -> Problem:
    """Return a 413 for a body over ``max_bytes``."""
    detail = (
        f"the body is over {max_bytes} bytes (see /limits): send smaller files, or a multipart form, which is a quarter "
        "smaller than base64"
    )
    return Problem(413, "body-too-large", detail, headers={"Connection": "close"})
