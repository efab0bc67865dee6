"""Flow control for streams between replicas, which Serve lacks.

A producer needs a credit from its consumer for each chunk. The consumer listens on a TCP port; the
producer of a stream connects to it and receives its credits there, one byte each. The connection
ends when the consumer closes the stream. It also ends when the consumer's process dies, however it
dies, because the operating system then closes it. So killing a consumer ends the work of its
producers, too.

Neither end asks Ray for anything, so a stream opens at once, also while Ray's head is away, and no
node but those of its two ends can break it.
"""

import asyncio
import contextlib
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

from deployments.errors import Cancelled

TOKEN_BYTES = 32
CONNECT_TIMEOUT_S = 10.0
"""Seconds that a producer may take to connect, and to send the token of its stream afterwards."""
MAX_UNKNOWN = 128
"""Connections that a consumer holds before it has read their tokens; it closes the oldest beyond.
Producers send theirs at once, so it is not they who wait."""
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""A producer notices after 30 s that the consumer's node is gone without having closed anything.
The kernel answers for a consumer that is only busy. Names are those of the socket module, which
has not all of them on every system."""


class Credits:
    """The credits of one stream, as its producer receives them."""

    def __init__(self) -> None:
        self._available = asyncio.Semaphore(0)
        self._closed = asyncio.Event()

    async def acquire(self) -> None:
        """Wait for a credit, which allows one more chunk.

        Raises Cancelled once the consumer has closed the stream or is gone.
        """
        await self._available.acquire()
        if self._closed.is_set():
            self._available.release()  # the next call must not wait either
            raise Cancelled("the consumer has closed the stream or is gone")

    async def closed(self) -> None:
        """Wait until the consumer closes the stream or is gone."""
        await self._closed.wait()

    async def receive(self, reader: asyncio.StreamReader) -> None:
        """Collect the credits that arrive, until the connection ends."""
        with contextlib.suppress(OSError):  # a connection that breaks has ended, too
            while received := await reader.read(1024):
                for _ in received:
                    self._available.release()
        self._closed.set()
        self._available.release()  # wakes a call that waits


@dataclass(frozen=True)
class ProducerEnd:
    """The producer's end of a stream. It travels with the request.

    ``token`` names the stream, and only who knows it can use it.
    """

    host: str
    port: int
    token: str = field(repr=False)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Credits]:
        """Receive credits while the block runs.

        Raises Cancelled if the consumer cannot be reached.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                reader, writer = await asyncio.open_connection(self.host, self.port)
        except OSError as error:  # a timeout is one of them
            raise Cancelled(f"the consumer at {self.host}, port {self.port}, cannot be reached ({error!r})") from error
        _keep_alive(writer.get_extra_info("socket"))
        writer.write(self.token.encode())
        credit = Credits()
        receiving = asyncio.create_task(credit.receive(reader))
        try:
            yield credit
        finally:
            receiving.cancel()
            writer.close()


class _Window:
    """The credits of one stream, as its consumer gives them."""

    def __init__(self, size: int) -> None:
        self._granted = size
        self._producer: asyncio.StreamWriter | None = None

    @property
    def connected(self) -> bool:
        """Whether a producer has ever connected."""
        return self._producer is not None

    def connect(self, producer: asyncio.StreamWriter) -> None:
        """Give all credits so far to ``producer``, and those to come."""
        self._producer = producer
        producer.write(bytes(self._granted))

    def grant(self) -> None:
        """Give one more credit."""
        self._granted += 1
        if self._producer is not None and not self._producer.is_closing():
            self._producer.write(bytes(1))

    def close(self) -> None:
        """End the connection."""
        if self._producer is not None:
            self._producer.close()


class ConsumerEnd:
    """The consumer's end of all its streams: the server that their producers connect to.

    ``host`` is the address by which other nodes reach this one. All methods must be called in the
    event loop that runs ``start``.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._server: asyncio.Server | None = None
        self._windows: dict[str, _Window] = {}
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._unknown: dict[asyncio.StreamWriter, None] = {}

    async def start(self) -> None:
        """Listen, on a port that is free."""
        self._server = await asyncio.start_server(self._receive_producer, self._host, 0, limit=2 * TOKEN_BYTES)

    async def stop(self) -> None:
        """Close all streams and stop listening."""
        if self._server is not None:
            self._server.close()
        self._windows.clear()
        for writer in self._connections.values():
            writer.close()
        await asyncio.gather(*self._connections)
        if self._server is not None:
            await self._server.wait_closed()  # from Python 3.12.1 on, this waits for connections

    def open(self, size: int) -> ProducerEnd:
        """Return a new stream with credits for ``size`` chunks."""
        if self._server is None:
            raise RuntimeError("ConsumerEnd.start was not called")
        token = secrets.token_hex(TOKEN_BYTES // 2)
        self._windows[token] = _Window(size)
        return ProducerEnd(self._host, self._server.sockets[0].getsockname()[1], token)

    def release(self, stream: ProducerEnd) -> None:
        """Return the credit of one chunk that has been processed."""
        if (window := self._windows.get(stream.token)) is not None:
            window.grant()

    def close(self, stream: ProducerEnd) -> None:
        """Close ``stream``, whether it has ended or is no longer needed."""
        if (window := self._windows.pop(stream.token, None)) is not None:
            window.close()

    async def _receive_producer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Give a producer that connects the credits of the stream whose token it sends."""
        task = cast("asyncio.Task[None]", asyncio.current_task())
        self._connections[task] = writer
        try:
            window = self._windows.get(await self._read_token(reader, writer))
            if window is not None and not window.connected:
                window.connect(writer)
                await reader.read(1)  # nothing more is ever sent, so this waits for the end
        except (asyncio.IncompleteReadError, OSError):
            pass  # the producer is gone, which its own call tells the consumer
        finally:
            writer.close()
            del self._connections[task]

    async def _read_token(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Return what a new connection sends; close the oldest if too many have sent nothing."""
        if len(self._unknown) >= MAX_UNKNOWN:
            oldest = next(iter(self._unknown))
            del self._unknown[oldest]
            oldest.close()
        self._unknown[writer] = None
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                return (await reader.readexactly(TOKEN_BYTES)).decode("ascii", "replace")
        finally:
            self._unknown.pop(writer, None)


def _keep_alive(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if (option := getattr(socket, name, None)) is not None:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
