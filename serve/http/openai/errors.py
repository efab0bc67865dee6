"""Gives the problems of the paths below /v1 the form of OpenAI's errors, which its clients read."""

import json
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PREFIX = "/v1/"
"""What the paths begin with on which errors have this form."""
_PROBLEM = b"application/problem+json"


class OpenAIErrors:
    """Middleware outside of what answers problems, in the ingress and in Serve's proxy.

    The status and the headers stay as they are, and so does the text that says what to do.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].removeprefix(scope.get("root_path", "")).startswith(PREFIX):
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        body = b""

        async def translated(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif start is None:
                await send(message)
            else:
                body += message.get("body", b"")
                if not message.get("more_body", False):
                    await _send_error(send, start, body)

        await self._app(scope, receive, translated)


def error_of(problem: dict[str, Any]) -> dict[str, Any]:
    """Return the error that says what a problem says."""
    status = problem.get("status", 500)
    named: dict[str, Any] = next(iter(problem.get("errors", ())), {})
    pointer = str(named.get("pointer", "")).removeprefix("#/").replace("~1", "/").replace("~0", "~")
    return {
        "message": problem.get("detail", "the request failed"),
        "type": _type_of(status),
        "code": str(problem.get("type", "")).rpartition(":")[2].replace("-", "_") or None,
        "param": pointer or named.get("parameter") or named.get("header"),
    }


def _type_of(status: int) -> str:
    types = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
    return types.get(status, "invalid_request_error" if status < 500 else "server_error")


def _is_problem(start: Message) -> bool:
    return Headers(raw=[(bytes(k), bytes(v)) for k, v in start["headers"]]).get("content-type", "").encode() == _PROBLEM


async def _send_error(send: Send, start: Message, body: bytes) -> None:
    problem = json.loads(body) if body else {}  # an answer to HEAD has no body
    text = json.dumps({"error": error_of(problem)}).encode() if body else b""
    headers = MutableHeaders(raw=[(bytes(k), bytes(v)) for k, v in start["headers"]])
    headers["content-type"] = "application/json"
    if body:
        headers["content-length"] = str(len(text))
    await send({**start, "headers": headers.raw})
    await send({"type": "http.response.body", "body": text})
