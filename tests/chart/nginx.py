"""The chart's gateway as a process of this machine: nginx with the rendered configuration."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chart.rendering import Json, one, render

Script = Callable[[socket.socket, bytes], None]
"""What the service does with a connection: it has the socket and the head of the request."""


def files(values: Json | None = None) -> dict[str, str]:
    """Return file name -> text of the gateway's ConfigMap."""
    data: dict[str, str] = one(render(values), "ConfigMap", "ryla-gateway")["data"]
    return data


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


def read_head(connection: socket.socket) -> bytes:
    """Read up to the end of the headers, and what came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            break
        data += part
    return data


class Service:
    """A server that runs one script for each connection and counts them."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._server = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._server.getsockname()[1]
        self.requests = 0
        self._arrived = threading.Semaphore(0)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:  # closed
                return
            self.requests += 1
            self._arrived.release()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(60)
            self._script(connection, read_head(connection))

    def await_requests(self, count: int) -> None:
        """Return once ``count`` requests have arrived in all; raise TimeoutError after a minute."""
        while self.requests < count:
            if not self._arrived.acquire(timeout=60):
                raise TimeoutError(f"{self.requests} of {count} requests have arrived")

    def close(self) -> None:
        """Accept no more connections."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()


def answer(connection: socket.socket, _: bytes) -> None:
    """Answer 200, without reading the body."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def say_nothing(connection: socket.socket, _: bytes) -> None:
    """Take a request, and keep its caller waiting until it leaves."""
    connection.recv(1)


@contextmanager
def gateway(
    folder: Path,
    service_port: int,
    replace: dict[str, str] | None = None,
    lost_ports: Sequence[int] = (),
    *,
    values: Json | None = None,
) -> Iterator[int]:
    """Run nginx, as the chart configures it with ``values``, and yield its own port.

    It is in front of ``service_port``, and of ``lost_ports`` before that.

    ``replace`` has texts of the configuration and what to put in their place, such as shorter
    times. Each must occur.
    """
    port, health = free_port(), free_port()
    text = files(values)["nginx.conf"]
    changes = {
        "/tmp/": f"{folder}/",
        "listen 8000": f"listen 127.0.0.1:{port}",
        "listen 8081": f"listen 127.0.0.1:{health}",
        **(replace or {}),
    }
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    (folder / "nginx.conf").write_text(text)
    servers = "".join(f"server 127.0.0.1:{p} max_fails=0; " for p in (*lost_ports, service_port))
    (folder / "cluster.conf").write_text(f"upstream proxies {{ {servers}}}\n")
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program is not None
    command = [program, "-c", str(folder / "nginx.conf"), "-e", str(folder / "error.log"), "-g", "daemon off;"]
    with (folder / "refused.log").open("w") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            while True:
                assert process.poll() is None, (folder / "error.log").read_text() + (folder / "refused.log").read_text()
                try:
                    socket.create_connection(("127.0.0.1", health), timeout=60).close()
                    break
                except ConnectionRefusedError:
                    continue
            yield port
        finally:
            process.terminate()


def send(port: int, *parts: bytes) -> socket.socket:
    """Connect and send; returns the connection."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    for part in parts:
        connection.sendall(part)
    return connection


def read_answer(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers in lower case and body of the answer, and close the connection."""
    with connection:
        head, _, body = read_head(connection).partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        while len(body) < int(headers["content-length"]):
            body += connection.recv(65536)
    return int(status.split()[1]), headers, body
