"""The commands of `ryla`."""

import base64
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from serve.cli import main, rollout
from serve.cli.console import console
from serve.cli.main import app
from serve.cli.presets import PRESETS, address
from serve.client import decode
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.scripted_server import Scripted, ScriptedServer, problem, scripted_server


@pytest.fixture(autouse=True)
def _wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 400)


def ryla(*arguments: str) -> Result:
    """Run a command."""
    return CliRunner().invoke(app, [*arguments])


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    headers = {"Content-Type": "video/mp4", "X-Seed": "7", "Server-Timing": "encode;dur=1.0"}
    with scripted_server(Scripted(b"film", 200, headers)) as server:
        yield server


def call(server: ScriptedServer, *arguments: str) -> str:
    result = ryla("call", *arguments, "--url", server.url)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_field_given_again_is_a_list(server: ScriptedServer, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(name.encode())
    fields = [f"reference_image=@{tmp_path / name}" for name in ("a", "b")]
    call(server, "image-faceswap", "faces=all", *fields, "-o", str(tmp_path / "out"))
    pictures = [base64.b64encode(name).decode() for name in (b"a", b"b")]
    (request,) = server.requests
    assert request.headers["accept"] == "*/*"
    assert request.body == {"faces": "all", "reference_image": pictures}
    assert (tmp_path / "out").read_bytes() == b"film"


@pytest.mark.parametrize(
    ("file", "accept"), [("a.mp4", "video/mp4"), ("a.WEBP", "image/webp"), ("a.jpeg", "image/jpeg"), ("a.dat", "*/*")]
)
def test_the_extension_of_the_file_asks_for_its_format(server: ScriptedServer, tmp_path: Path, file: str, accept: str) -> None:
    call(server, "wan2.6", "prompt=a cat", "-o", str(tmp_path / file))
    (request,) = server.requests
    assert (request.headers["accept"], request.body) == (accept, {"prompt": "a cat"})


def test_a_result_is_named_after_its_endpoint_and_its_headers_are_shown(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    output = call(server, "/wan2.6/", "prompt=a=b", "--key", "secret")
    assert (tmp_path / "wan2.6.mp4").read_bytes() == b"film"
    assert output.splitlines()[:2] == ["x-seed: 7", "server-timing: encode;dur=1.0"]
    assert "wan2.6.mp4: 4 bytes in " in output
    (request,) = server.requests
    assert (request.path, request.body) == ("/wan2.6", {"prompt": "a=b"})
    assert request.headers["authorization"] == "Bearer secret"


def test_a_refused_call_prints_the_reason_and_fails() -> None:
    with scripted_server(problem(422, "`prompt` is required")) as server:
        result = ryla("call", "wan2.6", "--url", server.url)
    assert result.exit_code == 1
    assert result.output.strip() == "wan2.6: 422 `prompt` is required"


@pytest.mark.parametrize(
    ("field", "message"), [("prompt", "must have the form field=value"), ("image=@/does/not/exist", "image: [Errno 2]")]
)
def test_a_field_that_cannot_be_read_is_named_before_the_call(server: ScriptedServer, field: str, message: str) -> None:
    result = ryla("call", "wan2.6", field, "--url", server.url)
    assert result.exit_code == 2
    assert message in result.output
    assert server.requests == []


def test_the_whole_service_passes_the_smoke_test(tmp_path: Path) -> None:
    with live_service(FakeGraph()) as url:
        result = ryla("smoke", url, "--save", str(tmp_path), "--wait", "30")
    assert result.exit_code == 0, result.output
    assert decode((tmp_path / "wan2.6-i2v-faceswap.mp4").read_bytes()).frames == 9


def test_the_smoke_test_fails_if_the_service_does_not_accept_requests() -> None:
    with scripted_server(problem(503, "starting")) as server:
        result = ryla("smoke", server.url, "--wait", "0.01", "--timeout", "0.01")
    assert result.exit_code == 1
    assert "does not accept requests after 0.01 s: 503 starting" in result.output


def test_the_smoke_test_fails_if_an_endpoint_does() -> None:
    with scripted_server(problem(500, "a bug")) as server:
        result = ryla("smoke", server.url)
    assert result.exit_code == 1
    assert result.output.count("500 a bug") == 7


@pytest.mark.parametrize("passes", [True, False])
def test_the_demo_runs_the_smoke_test_against_a_service_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passes: bool
) -> None:
    events: list[object] = []

    @contextmanager
    def running(config: Path) -> Iterator[str]:
        events.append(config)
        yield "client"
        events.append("stopped")

    def run_smoke(client: str, save: Path, deadline: float) -> bool:
        events.extend((client, save, time.monotonic() < deadline))
        return passes

    monkeypatch.setattr(main, "running", running)
    monkeypatch.setattr(main, "run_smoke", run_smoke)
    result = ryla("demo", "--save", str(tmp_path))
    assert result.exit_code == (0 if passes else 1)
    assert events == [PRESETS / "demo.yaml", "client", tmp_path, True, "stopped"]


def test_serve_becomes_rays_own_program_with_the_config_of_the_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[tuple[str, list[str], dict[str, str]]] = []
    monkeypatch.setattr(os, "execvpe", lambda *arguments: programs.append(arguments))
    result = ryla("serve", "production")
    other = ryla("serve", "--host", "0.0.0.0")
    (name, arguments, environment), (_, with_host, _) = programs
    assert (name, arguments) == ("serve", ["serve", "run", str(PRESETS / "production.yaml")])
    assert environment["RYLA_MAX_BODY_BYTES"] == str(64 * 2**20)
    assert "Starting production.yaml: http://127.0.0.1:8000/docs when it is ready" in result.output
    assert (result.exit_code, other.exit_code) == (0, 0)
    assert "host: 0.0.0.0" in Path(with_host[2]).read_text()
    assert address(Path(with_host[2])) == "127.0.0.1:8000"


def test_required_model_files_that_are_absent_fail_the_check(tmp_path: Path) -> None:
    result = ryla("models", "check", str(tmp_path))
    assert result.exit_code == 1
    assert "inswapper, swap" in result.output
    assert "missing, but optional" in result.output


def test_a_folder_or_a_list_of_checksums_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    absent = ryla("models", "check", str(tmp_path / "absent"))
    assert (absent.exit_code, str(tmp_path / "absent") in absent.output) == (1, True)
    sums = tmp_path / "sums"
    assert ryla("models", "check", str(tmp_path), "--checksums", str(sums)).exit_code == 1
    sums.write_text(f"{hashlib.sha256(b'').hexdigest()}  GFPGANv1.4.onnx\n")
    assert ryla("models", "check", str(tmp_path), "--checksums", str(sums)).exit_code == 1


def rollout_of(monkeypatch: pytest.MonkeyPatch, status: int) -> Result:
    """Run `ryla rollout` against an API server that answers with ``status``."""
    ready = [{"type": "Ready", "status": "True"}]
    active = {"rayClusterName": "ryla-a", "applicationStatuses": {"ryla": {"status": "RUNNING"}}}
    service = {"observedGeneration": 1, "conditions": ready, "activeServiceStatus": active}

    def answer(request: httpx.Request) -> httpx.Response:
        is_service = request.url.path == "/apis/ray.io/v1/namespaces/video/rayservices/ryla"
        body: Any = {"metadata": {"generation": 1}, "status": service} if is_service else {"items": []}
        return httpx.Response(status, json=body)

    api = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(main, "in_cluster", lambda: api)
    monkeypatch.setattr(rollout, "POLL_S", 0.0)
    return ryla("rollout", "ryla", "--namespace", "video")


def test_a_rollout_prints_each_state_and_succeeds_when_the_version_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    result = rollout_of(monkeypatch, 200)
    assert (result.exit_code, result.output) == (0, "up\n")


def test_a_rollout_that_may_not_be_watched_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    result = rollout_of(monkeypatch, 403)
    assert result.exit_code == 1
    assert "/rayservices/ryla: 403" in result.output
