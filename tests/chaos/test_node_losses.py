"""Nodes and the GCS of a Ray cluster are killed during videos, as ``node_losses.py`` does it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.graph
TIMEOUT_S = 900
"""Seconds that the script may take on a busy machine; it takes 2 minutes on an idle one."""


@pytest.fixture(scope="module")
def lost(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the script reports. It runs in its own process, because it starts a second Ray."""
    folder, root = tmp_path_factory.mktemp("losses"), Path(__file__).parents[2]
    command = [sys.executable, "-m", "tests.chaos.node_losses", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, cwd=root)
    lines = [line for line in run.stdout.splitlines() if line.startswith("LOST ")]
    assert lines, run.stdout[-3000:] + run.stderr[-6000:]
    report: dict[str, Any] = json.loads(lines[0].removeprefix("LOST "))
    return report


def statuses(answers: list[dict[str, Any]]) -> list[tuple[int, str]]:
    return [(answer["status"], answer["attempts"]) for answer in answers]


@pytest.mark.parametrize("name", ["other", "idle"], ids=["other models", "a replica that is idle"])
def test_a_video_does_not_depend_on_nodes_that_have_no_part_in_it(lost: dict[str, Any], name: str) -> None:
    assert statuses(lost[name]) == [(200, "1")], lost[name]


def test_a_video_whose_node_is_lost_is_made_again_elsewhere(lost: dict[str, Any]) -> None:
    assert statuses(lost["busy"]) == [(200, "2")], lost["busy"]


def test_videos_go_on_and_begin_while_the_gcs_is_away(lost: dict[str, Any]) -> None:
    assert len(lost["gcs"]) >= 2, "one that was at work, and those that began meanwhile"
    assert set(statuses(lost["gcs"])) == {(200, "1")}, lost["gcs"]


def test_flow_control_starts_no_actor(lost: dict[str, Any]) -> None:
    """An actor would be on a node of Ray's choice, and needs the GCS."""
    assert {name.split(":")[0] for name in lost["actors"]} == {"ServeController", "ProxyActor", "ServeReplica"}
