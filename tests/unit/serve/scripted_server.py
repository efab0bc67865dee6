"""An HTTP server that gives the answers of a script and keeps the requests that it got."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Scripted:
    """One answer.

    With ``cut`` the connection is closed after that many bytes of the body, or before the headers
    if it is negative.
    """

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass(frozen=True)
class Received:
    """One request: its headers by lower-case name, and its body, parsed if it is JSON."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes = b""


class ScriptedServer(ThreadingHTTPServer):
    """Gives one answer after the other; the last one is repeated."""

    def __init__(self, answers: list[Scripted], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.answers = answers
        self.requests: list[Received] = []

    @property
    def url(self) -> str:
        """The URL of the server, without a slash at its end."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: ScriptedServer

    def _answer(self) -> None:
        raw = self._body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = json.loads(raw) if raw and headers.get("content-type") == "application/json" else None
        self.server.requests.append(Received(self.command, self.path, headers, body, raw))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer.cut is not None and answer.cut < 0:
            return
        self.send_response(answer.status)
        for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body[: answer.cut])

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        raw = b""
        while size := int(self.rfile.readline(), 16):
            raw += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return raw

    do_GET = do_POST = do_DELETE = _answer  # noqa: N815 (the names are those of the base class)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@contextmanager
def scripted_server(*answers: Scripted, port: int = 0) -> Iterator[ScriptedServer]:
    """Run a server while the block runs, on a free port unless one is given."""
    with ScriptedServer(list(answers), port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def problem(status: int, detail: str) -> Scripted:
    """Return an answer of the service that says what is wrong."""
    return Scripted(json.dumps({"detail": detail}).encode(), status, {"Content-Type": "application/problem+json"})
