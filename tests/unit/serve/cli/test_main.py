"""`ryla call` against a server that notes what it was asked."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from serve.cli import app


class Asked(HTTPServer):
    """Answers each POST with a few bytes and keeps its header Accept and its body."""

    last: tuple[str, dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    server: Asked

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.last = self.headers["Accept"], body
        self.send_response(200)
        self.send_header("Content-Type", "video/mp4")
        self.end_headers()
        self.wfile.write(b"film")

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def server() -> Iterator[Asked]:
    with Asked(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def call(server: Asked, *arguments: str) -> None:
    result = CliRunner().invoke(app, ["call", *arguments, "--url", f"http://127.0.0.1:{server.server_port}"])
    assert result.exit_code == 0, result.output


def test_a_field_given_again_is_a_list(server: Asked, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    fields = [f"reference_image=@{tmp_path / name}" for name in ("a", "b")]
    call(server, "image-faceswap", "faces=all", *fields, "-o", str(tmp_path / "out"))
    pictures = [base64.b64encode(name).decode() for name in (b"a", b"b")]
    assert server.last == ("*/*", {"faces": "all", "reference_image": pictures})
    assert (tmp_path / "out").read_bytes() == b"film"


@pytest.mark.parametrize(
    ("file", "accept"), [("a.mp4", "video/mp4"), ("a.WEBP", "image/webp"), ("a.jpeg", "image/jpeg"), ("a.dat", "*/*")]
)
def test_the_ending_of_the_file_asks_for_its_format(server: Asked, tmp_path: Path, file: str, accept: str) -> None:
    call(server, "wan2.6", "prompt=a cat", "-o", str(tmp_path / file))
    assert server.last == (accept, {"prompt": "a cat"})
