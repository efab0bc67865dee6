"""One request to an ASGI application by hand, for tests that must control each message."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send


def http_scope(path: str = "/", method: str = "POST", headers: Mapping[str, str] | None = None) -> Scope:
    """Return the scope of a request."""
    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": raw,
        "root_path": "",
        "scheme": "http",
        "server": ("testserver", 80),
    }


def body_messages(*pieces: bytes) -> list[Message]:
    """Return the messages of a body that arrives in ``pieces``."""
    return [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)} for number, piece in enumerate(pieces, 1)
    ]


@dataclass
class Exchange:
    """A client that sends ``messages``, and stays until ``leave`` is called.

    ``received`` counts the messages that the application has taken, ``sent`` has its answer.
    """

    messages: Sequence[Message] = field(default_factory=lambda: body_messages(b""))
    received: int = 0
    sent: list[Message] = field(default_factory=list)
    _left: asyncio.Event = field(default_factory=asyncio.Event)

    async def receive(self) -> Message:
        """Return the next message, or wait until the client leaves."""
        if self.received < len(self.messages):
            self.received += 1
            return self.messages[self.received - 1]
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Take a message of the answer."""
        self.sent.append(message)

    def leave(self) -> None:
        """Close the connection."""
        self._left.set()

    def request(self, headers: Mapping[str, str] | None = None) -> Request:
        """Return the request as Starlette shows it to a handler."""
        return Request(http_scope(headers=headers), self.receive)

    @property
    def status(self) -> int:
        """The status of the answer."""
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> Headers:
        """The headers of the answer."""
        return Headers(raw=list(self.sent[0]["headers"]))

    @property
    def body(self) -> bytes:
        """The body of the answer."""
        return b"".join(message.get("body", b"") for message in self.sent[1:])

    @property
    def problem(self) -> dict[str, Any]:
        """The problem in the answer."""
        assert self.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = json.loads(self.body)
        return problem


@dataclass
class EchoApp:
    """An application that returns the body that it received and keeps the scopes of its calls."""

    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    headers: Mapping[str, str] = field(default_factory=dict)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scopes.append(scope)
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.bodies.append(body)
        raw = [(name.lower().encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        await send({"type": "http.response.body", "body": body})


async def until(holds: Callable[[], bool]) -> None:
    """Let other tasks run until ``holds``."""
    while True:
        if holds():
            return
        await asyncio.sleep(0)


async def pass_lifespan(app: ASGIApp) -> None:
    """Call ``app`` with a scope that is no HTTP request."""
    exchange = Exchange()
    await app({"type": "lifespan"}, exchange.receive, exchange.send)
    assert exchange.sent == []


def raising(error: BaseException) -> ASGIApp:
    """Return an application that raises ``error``."""

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        raise error

    return app
