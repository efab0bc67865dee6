"""Runs the service on this machine."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from serve.cli.console import spinner
from serve.cli.presets import address
from serve.client import CallFailed, Client
from serve.config import Limits, ProxySettings
from serve.http.proxy import IMPORT_PATH

START_TIMEOUT_S = float(os.environ.get("RYLA_START_TIMEOUT_S", "300"))
"""Seconds that a service may take to start."""


def serve_environment(config: Path) -> dict[str, str]:
    """Return the environment to start Ray in, where Serve's proxy finds our middleware."""
    programs = str(Path(sys.executable).parent)
    return {
        **os.environ,
        "PATH": os.pathsep.join([programs, os.environ.get("PATH", "")]),
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": IMPORT_PATH,
        **proxy_environment(yaml.safe_load(config.read_text())["applications"]),
    }


def proxy_environment(applications: list[dict[str, Any]]) -> dict[str, str]:
    """Return the variables that ``serve.http.proxy.middlewares`` reads.

    One proxy serves all applications, so it checks keys and origins only if there is a single one,
    at the root of the host. The ingress of each application checks them in any case.
    """
    settings = [application.get("args") or {} for application in applications]
    max_bytes = max(Limits(**args.get("limits", {})).max_body_bytes for args in settings)
    variables = {
        "RYLA_MAX_BODY_BYTES": str(max_bytes),
        "RYLA_PROXY": ProxySettings(**settings[0].get("proxy", {})).model_dump_json(),
    }
    if len(applications) == 1 and applications[0].get("route_prefix", "/") == "/":
        ingress = settings[0].get("ingress", {})
        if keys := ingress.get("api_keys"):
            variables["RYLA_API_KEYS"] = str(Path(keys).absolute())
        variables["RYLA_CORS_ORIGINS"] = " ".join(ingress.get("cors_origins", ()))
    return variables


def require_free_port(config: Path) -> None:
    """Raise CallFailed if a program listens where a service with this config would.

    Ray's proxy does not notice it: both would then share the connections.
    """
    host, _, port = address(config).rpartition(":")
    with socket.socket() as probe:
        probe.settimeout(5)
        if probe.connect_ex((host, int(port))) == 0:
            raise CallFailed(
                f"port {port} on {host} is in use: stop the program that listens there, or set "
                f"`http_options.port` in a copy of {config.name}"
            )


@contextlib.contextmanager
def running(config: Path, log: Path | None = None) -> Iterator[Client]:
    """Run a service while the block runs; every model is ready when the block begins."""
    require_free_port(config)
    log = log or Path("test-output/serve.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["serve", "run", str(config)],
            env=serve_environment(config),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            preexec_fn=_accept_interrupts,
        )
        try:
            with Client(f"http://{address(config)}") as client:
                _wait_until_ready(client, process, log)
                yield client
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _accept_interrupts() -> None:
    """Let Ctrl-C end the service, also in a background job, whose children ignore it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _wait_until_ready(client: Client, process: subprocess.Popen[bytes], log: Path) -> None:
    with spinner() as progress:
        task = progress.add_task("starting the service")
        deadline = time.monotonic() + START_TIMEOUT_S
        while (waiting_for := client.waiting_for()) is not None:
            progress.update(task, description=f"waiting for {waiting_for}")
            if (exit_code := process.poll()) is not None:
                raise CallFailed(f"the service ended with exit code {exit_code} while it started; see {log}")
            if time.monotonic() > deadline:
                raise CallFailed(
                    f"the service did not start in {START_TIMEOUT_S:g} s (RYLA_START_TIMEOUT_S): "
                    f"still waiting for {waiting_for}; see {log}"
                )
            time.sleep(0.5)
