"""Headers that every answer to a request has, results and problems alike."""

from collections.abc import Mapping

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import Message, Scope, Send


def add_to_answer(request: Request, headers: Mapping[str, str]) -> None:
    """Let the answer to ``request`` have ``headers``, even if it becomes an error."""
    _headers_of(request.scope).update(headers)


def send_with_headers(send: Send, scope: Scope) -> Send:
    """Return ``send`` such that the answer has the headers that were added to its request."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(_headers_of(scope))
        await send(message)

    return answer


def _headers_of(scope: Scope) -> dict[str, str]:
    headers: dict[str, str] = scope.setdefault("state", {}).setdefault("answer_headers", {})
    return headers
