"""A service without Ray under `run_service`: its driver follows a plan."""

import contextlib
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

FAKE_DRIVER = """
import json, os, subprocess, sys, time, yaml
from http.server import BaseHTTPRequestHandler, HTTPServer

config, report = yaml.safe_load(open(sys.argv[1])), int(sys.argv[2])
plan = config["plan"]
with open(plan["starts"], "a") as starts:
    starts.write("started\\n")
count = len(open(plan["starts"]).readlines())


def end(code, reason=""):
    os.write(report, reason.encode())
    sys.exit(code)


if plan["does"] == "fail":
    end(1, "wan26: no such file")
if plan["does"] == "fail silently":
    end(3)
if plan["does"] == "not start" and count <= plan["times"]:
    end(75, "the raylet timed out")
children = [subprocess.Popen([name, "-c", "import time; time.sleep(600)"], executable=plan["programs"] + "/" + name,
                             start_new_session=True) for name in ("raylet", "gcs_server")]
with open(plan["children"] + ".new", "w") as file:
    json.dump([os.getpid(), *(child.pid for child in children)], file)
os.rename(file.name, plan["children"])
if plan["does"] == "hang":
    time.sleep(600)


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        models = {"environment": {"state": "ready", "limit": os.environ["RYLA_MAX_BODY_BYTES"]}}
        body = json.dumps({"models": models}).encode()
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
"""A program in place of the driver: it has children named like Ray's, and follows a plan."""

RUN = """
import sys
from pathlib import Path
from serve.cli import service
service.DRIVER = (sys.argv[2],)
service.POLL_S = 0.05
service.PROBE_S = 0.1
service.START_TIMEOUT_S = float(sys.argv[3])
service.keep_token_private = lambda home: None
try:
    service.run_service(Path(sys.argv[1]), lambda line: print(line, flush=True))
except service.ServiceFailed as e:
    print(e, flush=True)
    sys.exit(1)
"""
"""`ryla serve` with the fake driver."""


class Supervised:
    """A fake service under `run_service` in a process of its own."""

    def __init__(self, folder: Path, does: str = "serve", *, times: int = 0, timeout_s: float = 100) -> None:
        self.folder = folder
        self.config = write_plan(folder, does, times)
        self.command = [sys.executable, "-c", RUN, str(self.config), str(folder / "driver.py"), str(timeout_s)]
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)

    def lines_until(self, text: str) -> list[str]:
        """Return the lines up to one that has ``text``."""
        assert self.process.stdout is not None
        lines = []
        for line in self.process.stdout:
            lines.append(line.rstrip())
            if text in line:
                return lines
        pytest.fail(f"{text!r} is not in {lines}")

    def ray(self) -> list[psutil.Process]:
        """Return the driver, the raylet and the GCS server of the fake service."""
        return [psutil.Process(pid) for pid in json.loads((self.folder / "children").read_text())]

    def end(self) -> tuple[int, list[str]]:
        """Return the exit code and the remaining lines."""
        out, _ = self.process.communicate(timeout=120)
        return self.process.returncode, out.splitlines()

    def close(self) -> None:
        """Leave nothing behind, whatever happened."""
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self.process.pid).children(recursive=True):
                child.kill()
        if (self.folder / "children").exists():  # those that outlived their parents
            for pid in json.loads((self.folder / "children").read_text()):
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()
        self.process.kill()
        self.process.communicate()


def config_file(folder: Path, plan: dict[str, Any] | None = None) -> Path:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    path = folder / "config.yaml"
    applications = [{"args": {"limits": {"max_body_bytes": 1000}}}]
    path.write_text(yaml.safe_dump({"plan": plan, "http_options": {"port": port}, "applications": applications}))
    return path


def write_plan(folder: Path, does: str, times: int = 0) -> Path:
    """Write the fake driver and a config with its plan to ``folder``; return the config."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("raylet", "gcs_server"):
        (programs / name).symlink_to(os.path.realpath(sys.executable))
    (folder / "driver.py").write_text(FAKE_DRIVER)
    plan = {
        "does": does,
        "times": times,
        "programs": str(programs),
        "starts": str(folder / "starts"),
        "children": str(folder / "children"),
    }
    return config_file(folder, plan)
