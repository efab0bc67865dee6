"""The commands of `ryla`."""

import base64
import hashlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from typer.testing import CliRunner, Result

from serve.cli import rollout, service, smoke
from serve.cli.console import console, error_console
from serve.cli.main import app
from serve.cli.presets import PRESETS, url
from serve.cli.service import ServiceFailed
from serve.client import CallFailed, decode
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.scripted_server import Scripted, ScriptedServer, problem, scripted_server


@pytest.fixture(autouse=True)
def _wide_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "width", 400)
    monkeypatch.setattr(error_console, "width", 400)


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
    ("file", "accept"), [("a.mp4", "video/mp4"), ("a.WEBP", "image/webp"), ("a.jpeg", "image/jpeg"), ("a", "*/*")]
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


def test_standard_output_gets_the_result_and_nothing_else(server: ScriptedServer) -> None:
    result = ryla("call", "wan2.6", "prompt=a cat", "-o", "-", "--url", server.url)
    assert (result.exit_code, result.stdout_bytes) == (0, b"film")
    assert "x-seed: 7" in result.stderr


@pytest.mark.parametrize(
    ("file", "message"),
    [("a.bmp", "unknown extension .bmp"), ("missing/a.mp4", "cannot be written"), (".", "is a folder: name a file in it")],
)
def test_a_file_that_cannot_be_written_is_refused_before_the_call(
    server: ScriptedServer, tmp_path: Path, file: str, message: str
) -> None:
    result = ryla("call", "wan2.6", "prompt=a cat", "-o", str(tmp_path / file), "--url", server.url)
    assert result.exit_code == 2
    assert message in result.output
    assert server.requests == []


def test_the_extension_of_the_file_asks_for_a_gif(server: ScriptedServer, tmp_path: Path) -> None:
    result = ryla("call", "wan2.6", "prompt=a cat", "-o", str(tmp_path / "A.GIF"), "--url", server.url)
    assert result.exit_code == 0
    assert [request.headers["accept"] for request in server.requests] == ["image/gif"]


def test_an_url_may_be_a_host_and_a_port(server: ScriptedServer, tmp_path: Path) -> None:
    result = ryla("call", "wan2.6", "-o", str(tmp_path / "a.mp4"), "--url", server.url.removeprefix("http://"))
    assert (result.exit_code, len(server.requests)) == (0, 1)


def test_ignored_fields_are_named_with_the_nearest_field(tmp_path: Path) -> None:
    headers = {"Content-Type": "image/jpeg", "X-Ignored-Fields": "sauce_image, sampler"}
    with scripted_server(Scripted(b"image", 200, headers)) as server:
        result = ryla("call", "image-faceswap", "-o", str(tmp_path / "a.jpg"), "--url", server.url)
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning")]
    assert warnings == [
        "warning: /image-faceswap ignored the field `sauce_image`; did you mean `source_image`?",
        "warning: /image-faceswap ignored the field `sampler`",
    ]


def test_a_refused_call_prints_the_reason_and_fails() -> None:
    with scripted_server(problem(422, "`prompt` is required")) as server:
        result = ryla("call", "wan2.6", "--url", server.url)
    assert result.exit_code == 1
    assert result.output.strip() == "wan2.6: 422 `prompt` is required"


@pytest.mark.parametrize(
    ("field", "message"),
    [("prompt", "must have the form field=value"), ("image=@/does/not/exist", "image: /does/not/exist: No such file")],
)
def test_a_field_that_cannot_be_read_is_named_before_the_call(server: ScriptedServer, field: str, message: str) -> None:
    result = ryla("call", "wan2.6", field, "--url", server.url)
    assert result.exit_code == 2
    assert message in result.output
    assert server.requests == []


@pytest.mark.slow
def test_the_whole_service_passes_the_smoke_test(tmp_path: Path) -> None:
    with live_service(FakeGraph()) as url:
        result = ryla("smoke", url, "--save", str(tmp_path), "--wait", "30")
    assert result.exit_code == 0, result.output
    assert decode((tmp_path / "wan2.6-i2v-faceswap.mp4").read_bytes()).frames == 9


@pytest.mark.slow
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


def test_a_service_that_does_not_answer_is_said_once() -> None:
    result = ryla("smoke", "127.0.0.1:9")
    assert result.exit_code == 1
    assert result.output.count("no answer from http://127.0.0.1:9") == 1
    assert "is the service running?" in result.output


@pytest.mark.slow
def test_help_and_calls_do_not_wait_for_slow_imports() -> None:
    code = "import sys, serve.cli.main; print({'ray', 'numpy', 'pydantic', 'torch'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_a_demo_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def running(config: Path) -> Iterator[str]:
        raise CallFailed("port 8000 on 127.0.0.1 is in use")
        yield "never"

    monkeypatch.setattr(service, "running", running)
    result = ryla("demo")
    assert (result.exit_code, result.output) == (1, "port 8000 on 127.0.0.1 is in use\n")


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

    monkeypatch.setattr(service, "running", running)
    monkeypatch.setattr(smoke, "run_smoke", run_smoke)
    result = ryla("demo", "--save", str(tmp_path))
    assert result.exit_code == (0 if passes else 1)
    assert events == [PRESETS / "demo.yaml", "client", tmp_path, True, "stopped"]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The configs that `ryla serve` runs, on a machine that has all model files."""
    configs: list[Path] = []
    monkeypatch.setattr(service, "run_service", lambda config, say: configs.append(config))
    monkeypatch.setattr("os.path.exists", lambda _: True)
    return configs


def test_serve_runs_the_config_of_the_preset_at_the_address_that_is_asked_for(served: list[Path]) -> None:
    assert ryla("serve", "single-gpu").exit_code == 0
    assert ryla("serve", "--host", "0.0.0.0", "--port", "8123").exit_code == 0
    assert ryla("serve", "--port", "8124").exit_code == 0
    preset, both, port = served
    assert preset == PRESETS / "single-gpu.yaml"
    assert "host: 0.0.0.0" in both.read_text()
    assert [url(config) for config in (both, port)] == ["http://127.0.0.1:8123", "http://127.0.0.1:8124"]


def test_serve_ends_with_the_reason_and_the_logs_if_the_service_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: Path, say: object) -> None:
        raise ServiceFailed("the service is lost: Ray's raylet ended")

    monkeypatch.setattr(service, "run_service", fail)
    monkeypatch.setenv("RAY_TMPDIR", "/var/tmp")
    result = ryla("serve")
    expected = "the service is lost: Ray's raylet ended; logs: /var/tmp/ray/session_latest/logs\n"
    assert (result.exit_code, result.stderr) == (1, expected)


def test_model_files_are_looked_for_unless_they_are_on_another_machine(
    served: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.path.exists", lambda _: False)
    refused = ryla("serve", "single-gpu")
    assert (refused.exit_code, served) == (1, [])
    assert "does not exist on this machine" in refused.stderr
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ryla("serve", "single-gpu").exit_code == 0
    assert served == [PRESETS / "single-gpu.yaml"]


def test_serve_refuses_to_keep_jobs_on_the_disk_of_one_of_several_nodes(served: list[Path]) -> None:
    refused = ryla("serve", "production")
    assert (refused.exit_code, served) == (1, [])
    assert "args.jobs.store is `embedded`" in refused.stderr


def test_serve_refuses_a_config_or_a_port_before_ray_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_Driver", lambda _: pytest.fail("Ray must not start"))
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    with socket.create_server(("127.0.0.1", 0)) as other:
        config["http_options"]["port"] = other.getsockname()[1]
        (tmp_path / "used.yaml").write_text(yaml.safe_dump(config))
        used = ryla("serve", str(tmp_path / "used.yaml"))
    config["applications"][0]["args"]["wan27"] = {}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump(config))
    bad = ryla("serve", str(tmp_path / "bad.yaml"))
    assert (used.exit_code, bad.exit_code) == (1, 1)
    assert "is in use: stop the program that listens there" in used.output
    assert "args.wan27" in bad.output


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"# Title\n\nSome *text*: more: text\n", "not valid YAML ("),
        (b"- a list\n", "contains neither a Serve config nor a RayService"),
        (b"\xff\xfe", "can't decode"),
        (b"kind: RayService\n", "a RayService without a name or a valid spec.serveConfigV2"),
    ],
)
def test_a_file_that_is_no_configuration_is_a_sentence(tmp_path: Path, text: bytes, sentence: str) -> None:
    (tmp_path / "file").write_bytes(text)
    result = ryla("check", str(tmp_path / "file"))
    assert result.exit_code == 1
    assert sentence in result.output
    assert "Traceback" not in result.output


def test_required_model_files_that_are_absent_fail_the_check(tmp_path: Path) -> None:
    result = ryla("models", "check", str(tmp_path))
    assert result.exit_code == 1
    assert "inswapper, swap" in result.output
    assert "Missing, but optional: hyperswap, swap; Ghost, swap;" in " ".join(result.output.split())
    assert result.output.strip().endswith("model file(s) are missing or faulty")


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
        body: Any = {"metadata": {"name": "ryla", "generation": 1}, "status": service} if is_service else {"items": []}
        return httpx.Response(status, json=body)

    api = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    monkeypatch.setattr(rollout, "in_cluster", lambda: api)
    monkeypatch.setattr(rollout, "POLL_S", 0.0)
    return ryla("rollout", "ryla", "--namespace", "video")


def test_a_rollout_prints_each_state_and_succeeds_when_the_version_is_up(monkeypatch: pytest.MonkeyPatch) -> None:
    result = rollout_of(monkeypatch, 200)
    assert (result.exit_code, result.output) == (0, "up\n")


def test_a_rollout_that_may_not_be_watched_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    result = rollout_of(monkeypatch, 403)
    assert result.exit_code == 1
    assert "/rayservices/ryla: 403" in result.output
