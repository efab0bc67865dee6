"""The id of a request, which the proxy, the ingress, the logs and the answer share."""

import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

_VALID = re.compile(r"[A-Za-z0-9._-]{1,128}")


def choose_request_id(sent: str | None) -> str:
    """Return the id that the caller sent if it is valid, else a new one."""
    return sent if sent is not None and _VALID.fullmatch(sent) else uuid.uuid4().hex


def send_with_request_id(send: Send, request_id: str) -> Send:
    """Return ``send`` such that the answer has exactly one `X-Request-Id` header."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            del headers["x-request-id"]
            headers["x-request-id"] = request_id
        await send(message)

    return named
