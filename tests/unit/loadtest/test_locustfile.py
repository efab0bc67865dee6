"""The users, run by Locust against the whole ingress over a fake graph.

Locust replaces parts of Python's library in its process, so that it has one of its own.
"""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.unit.loadtest.report_cells import Cells
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.scripted_server import Scripted, scripted_server

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
HANGING_S = 300
"""Seconds after which a run counts as hanging, however busy the machine is."""


@dataclass(frozen=True)
class Done:
    """What a run of Locust left."""

    code: int
    output: str
    rows: list[list[str]]


def locust(url: str, folder: Path, *options: str) -> Done:
    """Run the load test against ``url`` for as long as ``options`` say."""
    report = folder / "load.html"
    file = ROOT / "loadtest" / "locustfile.py"
    command = [sys.executable, "-m", "locust", "-f", str(file), "--host", url, "--headless", "--only-summary"]
    done = subprocess.run(
        [*command, "--report", str(report), "--shape", "soak", "--run-time", f"{HANGING_S}s", "--stop-timeout", "60", *options],
        check=False,
        capture_output=True,
        text=True,
        timeout=HANGING_S,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=folder,
    )
    return Done(done.returncode, done.stdout + done.stderr, Cells(report.read_text()).rows if report.exists() else [])


@pytest.fixture
def service() -> Iterator[str]:
    with live_service(FakeGraph()) as url:
        yield url


def test_all_kinds_of_users_find_every_answer_right(service: str, tmp_path: Path) -> None:
    run = locust(service, tmp_path, "--users", "8", "--answers", "80")
    assert run.code == 0, run.output
    measured = {row[0].split(": ")[1]: row for row in run.rows if row and ": " in row[0]}
    assert {"seconds", "first_progress", "result", "frame_rate", "cost"} <= measured.keys(), run.output
    assert ["errors <= 0", "0", "kept"] in run.rows


def test_a_threshold_that_is_missed_fails_the_run(service: str, tmp_path: Path) -> None:
    run = locust(service, tmp_path, "--users", "2", "--answers", "6", "--threshold", "frame_rate:*:min>=1e9")
    assert run.code == 1, run.output
    assert "MISSED: frame_rate:*:min >= 1e+09" in run.output


def test_a_refusal_without_a_time_is_an_error_and_one_with_it_is_none(tmp_path: Path) -> None:
    with scripted_server(Scripted(status=503)) as server:
        bare = locust(server.url, tmp_path, "--users", "1", "--answers", "1")
    assert bare.code == 1, bare.output
    assert "503 without a Retry-After" in bare.output
    with scripted_server(Scripted(status=503, headers={"Retry-After": "1"})) as server:
        honest = locust(server.url, tmp_path, "--users", "1", "--answers", "1")
    assert honest.code == 0, honest.output
    assert any(row and row[0].endswith(": retry_after") for row in honest.rows), honest.output


def test_workers_report_to_their_master(service: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    options = ("--users", "4", "--answers", "4", "--processes", "2", "--master-bind-port", port, "--master-port", port)
    run = locust(service, tmp_path, *options, "--threshold", "frame_rate:*:count>=1")
    assert run.code == 0, run.output


def test_an_unknown_threshold_is_refused_before_anything_is_sent(service: str, tmp_path: Path) -> None:
    run = locust(service, tmp_path, "--threshold", "speed<=1")
    assert run.code == 2
    assert "must have the form" in run.output
