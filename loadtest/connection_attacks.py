"""Attacks by connections that are held: slow, idle, lingering, or with an unread answer."""

import json
import resource
import socket
from dataclasses import dataclass, field
from threading import Event

from loadtest.attacks import PAUSE_S, TIMEOUT_S, Address, Tally, authorization, post, read_status, readable, send_all
from serve.http.examples import payload

MOST_CONNECTIONS = 1000
SPARE_FILES = 256
"""Files that this process needs for everything else: the honest callers and the other attacks."""


def connection_count(file_limit: int) -> int:
    """Return how many connections a process that may open ``file_limit`` files can hold."""
    return max(0, min(MOST_CONNECTIONS, file_limit - SPARE_FILES))


@dataclass
class Held:
    """Connections that are held until the service answers on them or closes them."""

    address: Address
    tally: Tally
    connections: list[socket.socket] = field(default_factory=list)

    def open(self, first: bytes) -> bool:
        """Open a connection and send ``first``; return whether that worked."""
        try:
            connection = socket.create_connection(self.address, timeout=TIMEOUT_S)
        except OSError:
            self.tally.count("refused")
            return False
        send_all(connection, first)
        self.connections.append(connection)
        return True

    def send(self, data: bytes) -> None:
        """Send ``data`` on all connections."""
        for connection in self.connections:
            send_all(connection, data)

    def let_go_of_answered(self) -> None:
        """Count the answers that have come, and close their connections."""
        for connection in readable(self.connections, 0):
            self.tally.count(read_status(connection))
            self.close(connection)

    def close(self, connection: socket.socket) -> None:
        """Close one of the connections."""
        connection.close()
        self.connections.remove(connection)

    def close_all(self) -> None:
        """Close what is left."""
        for connection in list(self.connections):
            self.close(connection)


def many_slow(address: Address, stop: Event, tally: Tally) -> None:
    """Hold as many connections as the limits allow, each sending a header every two seconds."""
    most, held = connection_count(resource.getrlimit(resource.RLIMIT_NOFILE)[0]), Held(address, tally)
    while not stop.is_set():
        while len(held.connections) < most and not stop.is_set():
            if not held.open(b"GET /limits HTTP/1.1\r\nHost: x\r\n"):
                break
        held.let_go_of_answered()
        held.send(b"X: y\r\n")
        tally.rounds += 1
        stop.wait(2)
    held.close_all()


def idle_chunks(address: Address, stop: Event, tally: Tally) -> None:
    """Hold 32 chunked bodies of which a piece has arrived and then nothing more."""
    held = Held(address, tally)
    head = f"POST /wan2.6 HTTP/1.1\r\nHost: x\r\n{authorization()}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    while not stop.is_set():
        while len(held.connections) < 32 and held.open(head + b"40000\r\n" + b" " * 0x40000 + b"\r\n"):
            pass
        held.let_go_of_answered()
        tally.rounds += 1
        stop.wait(1)
    held.close_all()


def lingering(address: Address, stop: Event, tally: Tally) -> None:
    """Hold 64 connections after their answer, and go on sending on half of them."""
    held = Held(address, tally)
    while not stop.is_set():
        while len(held.connections) < 64 and held.open(post("/nothing-here", b"{}")):
            pass
        for connection in held.connections[::2]:
            send_all(connection, b" ")
        tally.rounds += 1
        stop.wait(1)
        for connection in held.connections[:8]:
            tally.count(read_status(connection))
            held.close(connection)
    held.close_all()


def unread_answers(address: Address, stop: Event, tally: Tally) -> None:
    """Ask for large answers on 64 connections that never read, with small receive buffers."""
    held: list[socket.socket] = []
    request = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    swap = post("/image-faceswap", json.dumps(payload("image-faceswap")).encode(), "Accept: image/png", authorization())
    while not stop.is_set():
        while len(held) < 64 and not stop.is_set():
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(TIMEOUT_S)
            held.append(connection)
            try:
                connection.connect(address)
            except OSError:
                break
            # Few of them cost the service more than the sending of an answer.
            send_all(connection, swap if len(held) % 16 == 0 else request * 8)
        stop.wait(20 * PAUSE_S)
        tally.rounds += 1
        for connection in held[:32]:
            tally.count("unread")
            connection.close()
        del held[:32]
    for connection in held:
        connection.close()


CONNECTION_ATTACKS = {
    "1000 slow": many_slow,
    "idle chunks": idle_chunks,
    "lingering": lingering,
    "unread": unread_answers,
}
