"""`ryla serve` under a supervisor, which starts it again when it has failed, as systemd would."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml

from serve.cli.presets import PRESETS, url
from serve.cli.processes import ProcessTree, end_with_parent
from serve.cli.service import COMMAND, START_TIMEOUT_S, STOP_TIMEOUT_S
from serve.client import Client

POLL_S = 0.5


def demo_config(port: int, args: dict[str, Any], deployments: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the demo's Serve config with other settings, and with options of its deployments."""
    config: dict[str, Any] = yaml.safe_load((PRESETS / "demo.yaml").read_text())
    config["http_options"]["port"] = port
    (application,) = config["applications"]
    application["args"].update(args)
    application["deployments"] = deployments
    return config


class Supervised:
    """A service that is started again whenever it ends with an exit code other than 0."""

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self._path, self._log = folder / "config.yaml", folder / "serve.log"
        self._path.write_text(yaml.safe_dump(config))
        self.url = url(self._path)
        self.starts = 0
        self._ready = False
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._supervisor = threading.Thread(target=self._supervise)

    def start(self) -> None:
        """Start the service and its supervisor; return when every model is ready or asleep."""
        self._start_once()
        self.wait_until_ready()
        self._supervisor.start()

    def wait_until_ready(self) -> None:
        """Return when every model is ready or asleep."""
        wait_for(self._is_ready, START_TIMEOUT_S, self.tail)

    def root(self) -> int | None:
        """Return the process from which those of the service descend, once it has started.

        Serve gives an application up of which replicas die while it starts for the first time.
        """
        process = self._process
        return None if not self._ready or process is None or process.poll() is not None else process.pid

    def kill_all(self) -> int:
        """Kill all processes at once, as a machine that fails does; return how many there were."""
        process = self._process
        assert process is not None
        children = ProcessTree(process.pid).descendants()
        tree = [psutil.Process(process.pid), *children]
        for member in tree:  # no process sees another one end before it has been told to stop itself
            with contextlib.suppress(psutil.NoSuchProcess):
                member.suspend()
        for member in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        process.wait(10)  # first, since its exit code can be had only once
        psutil.wait_procs(children, timeout=10)
        return len(tree)

    def redeploy(self, args: dict[str, Any]) -> None:
        """Change settings of the running application, as `serve deploy` does it."""
        config = yaml.safe_load(self._path.read_text())
        config["applications"][0]["args"].update(args)
        self._path.write_text(yaml.safe_dump(config))
        environment = {**os.environ, "RAY_DASHBOARD_ADDRESS": "http://127.0.0.1:8265", "RAY_AUTH_MODE": "token"}
        command = ["serve", "deploy", str(self._path)]
        done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def stop(self) -> None:
        """Stop the service and its supervisor."""
        self._stopping.set()
        if self._supervisor.is_alive():
            self._supervisor.join()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_TIMEOUT_S + 30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def tail(self) -> str:
        """Return the end of the service's log."""
        return self._log.read_text(errors="replace")[-4000:]

    def _start_once(self) -> None:
        self.starts += 1
        self._ready = False
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, *COMMAND, str(self._path)],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                preexec_fn=end_with_parent,
            )

    def _is_ready(self) -> bool:
        with Client(self.url) as client:
            self._ready = client.waiting_for(also=("asleep",)) is None
        return self._ready

    def _supervise(self) -> None:
        while not self._stopping.wait(POLL_S):
            if self._process is not None and (code := self._process.poll()) is not None and code != 0:
                self._start_once()
            elif not self._ready:
                self._is_ready()


def wait_for(condition: Callable[[], Any], timeout_s: float, why: Callable[[], str] = lambda: "") -> Any:
    """Wait until ``condition`` returns a true value, and return it; ``why`` explains a timeout."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s} s. {why()}"
        time.sleep(0.2)
    return value
