"""What the containers with a shell as process 1 do with SIGTERM, with their real commands."""

import os
import signal
import subprocess
from pathlib import Path
from typing import Any

from tests.chart.rendering import EVERYTHING, one, render


def _start(container: Any, environment: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*container["command"], *container["args"]],
        env={"PATH": f"{folder}:{os.environ['PATH']}", **environment},
        stdout=subprocess.PIPE,
    )


def _program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}")
    path.chmod(0o755)


def test_the_autoscaler_ends_at_sigterm_although_it_has_no_handler(tmp_path: Path) -> None:
    """Process 1 of a container ignores a signal without a handler, so it must not be process 1."""
    options = one(render(), "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]
    _program(tmp_path / "autoscaler", "echo $$ $1\nexec sleep 600\n")
    with _start(options, {"KUBERAY_GEN_AUTOSCALER_START_CMD": "autoscaler --cluster-name=ryla"}, tmp_path) as process:
        assert process.stdout is not None
        pid, argument = process.stdout.readline().decode().split()
        assert argument == "--cluster-name=ryla"
        assert int(pid) != process.pid, "as process 1 it would ignore the signal"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 143
        assert not Path(f"/proc/{pid}").exists(), "the shell waits for the autoscaler"


def test_the_autoscaler_container_ends_with_the_status_of_the_autoscaler(tmp_path: Path) -> None:
    options = one(render(), "RayService")["spec"]["rayClusterConfig"]["autoscalerOptions"]
    _program(tmp_path / "autoscaler", "exit 7\n")
    with _start(options, {"KUBERAY_GEN_AUTOSCALER_START_CMD": "autoscaler"}, tmp_path) as process:
        assert process.wait(timeout=60) == 7


def test_redis_is_process_1_and_reads_its_password_from_stdin(tmp_path: Path) -> None:
    (container,) = one(render(EVERYTHING), "StatefulSet", "ryla-redis")["spec"]["template"]["spec"]["containers"]
    _program(tmp_path / "redis-server", "echo $$ $*\ncat\n")
    with _start(container, {"REDIS_PASSWORD": 'a $HOME `b` \\ "c'}, tmp_path) as process:
        written, _ = process.communicate(timeout=60)
    first, *configuration = written.decode().splitlines()
    assert first == f"{process.pid} -"
    assert configuration == ['requirepass a $HOME `b` \\ "c', "appendonly yes", 'save ""', "dir /data"]
