"""Refuses bodies that are too large: in the ingress, and already in Serve's proxy, which would hold them in memory."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serve.errors import Problem


class BodyLimit:
    """Refuses a body over ``most`` bytes with Problem 413: by Content-Length before a byte is read, else as soon as it is over."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "")
        if length.isdigit() and int(length) > self._most:
            raise too_large(self._most)
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise too_large(self._most)
            return message

        await self._app(scope, limited, send)


def too_large(most: int) -> Problem:
    """413 for the body as a whole."""
    detail = f"the body is over {most} bytes (see /limits): send smaller files, or files in a multipart form, not base64"
    return Problem(413, "body-too-large", detail, headers={"Connection": "close"})
