"""Callers who do not read their answers. The server is Serve's own."""

import asyncio
import contextlib
import socket
import sys
from functools import partial
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from serve.http.protocol import unread_answers
from serve.http.protocol.bounded_protocol import BoundedProtocol
from serve.http.protocol.unread_answers import UNSENT_BYTES
from tests.unit.serve.http.asgi import until
from tests.unit.serve.http.front import front

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.slow
async def test_an_answer_that_is_not_read_is_cut_off() -> None:
    sent = asyncio.Event()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(64 * 2**20), "more_body": True})
        await send({"type": "http.response.body", "body": b"end"})
        sent.set()

    async with front(app, stall_timeout_s=0.1) as service:
        caller = await service.call(GET)
        await sent.wait()  # nothing else would wake the application from its second message
        read = 0
        with contextlib.suppress(ConnectionError):
            while piece := await caller.reader.read(2**20):
                read += len(piece)
        assert read < 64 * 2**20


@pytest.mark.slow
async def test_unread_answers_have_a_budget_that_counts_what_is_still_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of each answer is in buffers of the system, so that 25 of 32 MiB at least are not."""
    monkeypatch.setattr(unread_answers, "BUSY_STALL_S", 0.0)
    size, piece = 32 * 2**20, 2**20

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        for at in range(0, size, piece):
            await send({"type": "http.response.body", "body": bytes(piece), "more_body": at + piece < size})

    async with front(app, max_unread_bytes=40 * 2**20) as service:
        callers = [await service.call(GET)]
        earlier: set[Any] = set()
        for _ in range(3):
            await until(lambda: len(BoundedProtocol.unread) == 1)
            earlier = set(service.server.server_state.connections)
            callers.append(await service.call(GET))
            await until(partial(earlier.isdisjoint, service.server.server_state.connections))
        assert len((await callers[-1].answer()).body) == size
        for caller in callers[:-1]:
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await caller.answer()


@pytest.mark.slow
@pytest.mark.parametrize("ends", ["by request", "by itself"])
async def test_the_last_bytes_of_an_answer_do_not_keep_a_connection_open(ends: str) -> None:
    """They are too few for the server to pause, and are in its memory: the system takes less."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"60000")]})
        await send({"type": "http.response.body", "body": bytes(60000)})

    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with front(app, stall_timeout_s=0.1) as service:
            reader.connect(("127.0.0.1", service.port))
            await until(lambda: service.connections() == 1)
            (connection,) = service.server.server_state.connections
            assert isinstance(connection, BoundedProtocol)
            connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            connection.timeout_keep_alive = 0
            reader.sendall(GET if ends == "by itself" else GET.replace(b"Host", b"Connection: close\r\nHost"))
            await until(lambda: connection.cycle is not None and connection.cycle.response_complete)
            assert connection.transport.get_write_buffer_size() > 0
            await until(lambda: service.connections() == 0)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such setting")
async def test_the_system_holds_little_of_an_answer_that_is_not_read() -> None:
    size = 16 * 2**20

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % size)]})
        await send({"type": "http.response.body", "body": bytes(size)})

    with socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        async with front(app) as service:
            reader.connect(("127.0.0.1", service.port))
            reader.sendall(GET)
            await until(lambda: len(BoundedProtocol.unread) == 1)
            (connection,) = service.server.server_state.connections
            assert isinstance(connection, BoundedProtocol)
            assert size - connection.unread_bytes() < 8 * UNSENT_BYTES
