"""The job that runs after an install or upgrade."""

import pytest

from tests.chart.rendering import Json, one, render


@pytest.mark.parametrize("values", [{}, {"mode": "pod", "preset": "demo"}, {"rollout": {"smoke": False}}])
def test_all_steps_end_before_the_deadline(values: Json) -> None:
    spec = one(render(values), "Job", "ryla-rollout")["spec"]
    pod = spec["template"]["spec"]
    commands = [c["command"] for c in (*pod.get("initContainers", []), *pod["containers"])]
    assert sum(int(command[command.index("--timeout") + 1]) for command in commands) <= spec["activeDeadlineSeconds"] - 60


def test_waiting_for_the_new_version_ends_before_the_deadline() -> None:
    job = one(render(), "Job", "ryla-rollout")
    (container,) = job["spec"]["template"]["spec"]["initContainers"]
    assert int(container["command"][-1]) < job["spec"]["activeDeadlineSeconds"]
