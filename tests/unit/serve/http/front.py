"""Serve's HTTP server with the service's middleware on a port of this machine, without Ray."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn.config
from ray.serve._private.http_util import configure_http_middlewares, start_asgi_http_server
from ray.serve.config import HTTPOptions
from starlette.types import ASGIApp

from serve.http.protocol.bounded_protocol import BoundedProtocol
from tests.unit.serve.http.asgi import until


@dataclass
class Answer:
    """An answer as it came: ``headers`` by their lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        """The problem in the answer."""
        assert self.headers["content-type"] == "application/problem+json"
        problem: dict[str, Any] = json.loads(self.body)
        return problem

    @property
    def slug(self) -> str:
        """The last part of the problem's type."""
        return str(self.problem["type"]).rpartition(":")[2]


@dataclass
class Caller:
    """One connection, byte by byte."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, *pieces: bytes) -> None:
        """Send ``pieces`` one after the other."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self) -> Answer:
        """Read an answer with a Content-Length."""
        status, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return Answer(int(status.split()[1]), headers, body)

    async def closed(self) -> bool:
        """Wait until the service closes the connection; return whether it sent nothing more."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read() == b""
        return True


@dataclass
class Front:
    """A running front and the connections to it."""

    port: int
    server: uvicorn.Server
    _callers: list[Caller]

    async def call(self, *pieces: bytes, address: str = "127.0.0.1") -> Caller:
        """Open a connection from ``address``, one of this machine's own, and send ``pieces``."""
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port, local_addr=(address, 0)))
        self._callers.append(caller)
        await caller.send(*pieces)
        return caller

    def connections(self) -> int:
        """Return how many connections the server has; those that make room are the same."""
        number = len(self.server.server_state.connections)
        assert number == len(BoundedProtocol.opened)
        return number


@contextlib.asynccontextmanager
async def front(app: ASGIApp, **settings: Any) -> AsyncIterator[Front]:
    """Run ``app`` behind the middleware, as Serve's proxy does, while the block runs.

    ``settings`` are those of ``AppConfig.proxy``. Whatever a test sets in the environment holds.
    """
    before, protocols = BoundedProtocol.settings, dict(uvicorn.config.HTTP_PROTOCOLS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("RYLA_PROXY", json.dumps(settings))
        options = configure_http_middlewares(HTTPOptions(host="127.0.0.1", port=0))
    task, server = await start_asgi_http_server(app, options, event_loop=asyncio.get_running_loop())
    callers: list[Caller] = []
    try:
        await until(lambda: server.started)
        yield Front(server.servers[0].sockets[0].getsockname()[1], server, callers)
    finally:
        for caller in callers:
            caller.writer.close()
        server.should_exit = server.force_exit = True
        await task
        BoundedProtocol.settings = before
        uvicorn.config.HTTP_PROTOCOLS.clear()
        uvicorn.config.HTTP_PROTOCOLS.update(protocols)
