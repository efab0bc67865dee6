"""The service runs as a process of this machine for as long as a block."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from serve.cli import service
from serve.cli.presets import PRESETS
from serve.cli.service import proxy_environment, require_free_port, running, serve_environment
from serve.client import CallFailed, Client
from serve.config import Limits, ProxySettings
from serve.http.proxy import IMPORT_PATH

SERVE = f"""#!{sys.executable}
import json, os, sys, yaml
from http.server import BaseHTTPRequestHandler, HTTPServer

config = yaml.safe_load(open(sys.argv[2]))
print("started with", sys.argv[1], flush=True)
if config["broken"]:
    sys.exit("no such model")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        models = {{"environment": {{"state": "ready", "limit": os.environ["RYLA_MAX_BODY_BYTES"]}}}}
        body = json.dumps({{"models": models}}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


try:
    HTTPServer(("127.0.0.1", config["http_options"]["port"]), Handler).serve_forever()
except KeyboardInterrupt:
    print("stopped by Ctrl-C", flush=True)
"""
"""A program in place of Ray Serve's: it reports every model as ready until it is interrupted."""


@pytest.fixture
def _fake_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "serve").write_text(SERVE)
    (programs / "serve").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))

    class Clock:
        monotonic = staticmethod(time.monotonic)

        @staticmethod
        def sleep(_: float) -> None:
            """Ask again soon."""
            time.sleep(0.02)

    monkeypatch.setattr(service, "time", Clock)


def config_file(folder: Path, *, broken: bool = False) -> Path:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = folder / "config.yaml"
    applications = [{"args": {"limits": {"max_body_bytes": 1000}}}]
    path.write_text(yaml.safe_dump({"broken": broken, "http_options": {"port": port}, "applications": applications}))
    return path


@pytest.mark.usefixtures("_fake_serve")
def test_a_service_runs_while_the_block_does_and_is_interrupted_afterwards(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "serve.log"
    with running(config_file(tmp_path), log) as client:
        assert client.waiting_for() is None
        response = client._http.get("/readyz")
        assert json.loads(response.text)["models"]["environment"]["limit"] == "1000"
    assert log.read_text().splitlines() == ["started with run", "stopped by Ctrl-C"]
    with Client(client.url) as other:
        assert other.waiting_for() == "the service", "the service is gone"


@pytest.mark.usefixtures("_fake_serve")
def test_a_service_of_a_background_job_is_interrupted_too(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell starts a background job
    try:
        with running(config_file(tmp_path), tmp_path / "serve.log"):
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "serve.log").read_text().splitlines() == ["started with run", "stopped by Ctrl-C"]


@pytest.mark.usefixtures("_fake_serve")
def test_a_service_that_does_not_start_is_an_error_that_names_the_log(tmp_path: Path) -> None:
    log = tmp_path / "serve.log"
    with (
        pytest.raises(CallFailed, match=rf"the service ended with exit code \d+ while it started; see {log}"),
        running(config_file(tmp_path, broken=True), log),
    ):
        pytest.fail("the block must not run")
    assert "no such model" in log.read_text()


def test_a_service_that_does_not_stop_when_it_is_interrupted_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[object] = []

    class Stubborn:
        """A process that ends only when it is killed."""

        def __init__(self, command: list[str], **_: object) -> None:
            events.append(command[0])

        def poll(self) -> int:
            return 1

        def send_signal(self, number: int) -> None:
            events.append(signal.Signals(number).name)

        def wait(self, timeout: float | None = None) -> None:
            if timeout is not None:
                raise subprocess.TimeoutExpired("serve", timeout)
            events.append("ended")

        def kill(self) -> None:
            events.append("killed")

    monkeypatch.setattr(subprocess, "Popen", Stubborn)
    with pytest.raises(CallFailed), running(config_file(tmp_path), tmp_path / "serve.log"):
        pytest.fail("the block must not run")
    assert events == ["serve", "SIGINT", "killed", "ended"]


def test_the_proxy_gets_the_body_limit_of_the_settings(tmp_path: Path) -> None:
    assert serve_environment(PRESETS / "demo.yaml")["RYLA_MAX_BODY_BYTES"] == str(Limits().max_body_bytes)
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["applications"][0]["args"]["limits"]["max_body_bytes"] = 1000
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    assert serve_environment(path)["RYLA_MAX_BODY_BYTES"] == "1000"


def test_the_proxy_gets_its_settings_and_what_it_checks(tmp_path: Path) -> None:
    config = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["applications"][0]["args"]["proxy"] = {"max_connections": 50}
    config["applications"][0]["args"]["ingress"] = {"api_keys": "keys", "cors_origins": ["https://a", "https://b"]}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    environment = serve_environment(path)
    assert ProxySettings.model_validate_json(environment["RYLA_PROXY"]) == ProxySettings(max_connections=50)
    assert environment["RYLA_API_KEYS"] == str(Path("keys").absolute())
    assert environment["RYLA_CORS_ORIGINS"] == "https://a https://b"


@pytest.mark.parametrize("second", [True, False], ids=["two applications", "not at the root"])
def test_keys_are_left_to_the_ingress_where_the_proxy_cannot_tell_whose_they_are(second: bool) -> None:
    application = {"route_prefix": "/" if second else "/a", "args": {"ingress": {"api_keys": "/keys"}}}
    variables = proxy_environment([application, {"route_prefix": "/b"}] if second else [application])
    assert sorted(variables) == ["RYLA_MAX_BODY_BYTES", "RYLA_PROXY"]


def test_ray_is_started_with_our_middleware_and_with_the_programs_of_this_environment() -> None:
    environment = serve_environment(PRESETS / "demo.yaml")
    assert environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"] == IMPORT_PATH
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    assert environment["HF_HUB_OFFLINE"] == os.environ["HF_HUB_OFFLINE"], "the rest is inherited"


def test_a_port_that_is_in_use_is_refused_before_anything_starts(tmp_path: Path) -> None:
    path = config_file(tmp_path)
    require_free_port(path)
    port = yaml.safe_load(path.read_text())["http_options"]["port"]
    log = tmp_path / "serve.log"
    with (
        socket.create_server(("127.0.0.1", port)),
        pytest.raises(CallFailed, match=f"port {port} on 127.0.0.1 is in use: stop the program that listens there"),
        running(path, log),
    ):
        pytest.fail("the block must not run")
    assert not log.exists()


@pytest.mark.usefixtures("_fake_serve")
def test_a_start_that_takes_too_long_says_what_it_waits_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "START_TIMEOUT_S", 0.0)
    with (
        pytest.raises(CallFailed, match=r"did not start in 0 s \(RYLA_START_TIMEOUT_S\): still waiting for the service; see"),
        running(config_file(tmp_path), tmp_path / "serve.log"),
    ):
        pytest.fail("the block must not run")
