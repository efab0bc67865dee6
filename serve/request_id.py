"""The id of a request: one for the proxy, the ingress, the logs and the answer."""

import re
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

_DECENT = re.compile(r"[A-Za-z0-9._-]{1,128}")


def choose_request_id(sent: str | None) -> str:
    """The id that a request came with, if it is a decent one, else a new one."""
    return sent if sent is not None and _DECENT.fullmatch(sent) else uuid.uuid4().hex


def send_with_request_id(send: Send, request_id: str) -> Send:
    """``send``, with one `X-Request-Id` in the answer's headers, whatever was there."""

    async def named(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            del headers["x-request-id"]
            headers["x-request-id"] = request_id
        await send(message)

    return named
