"""The job that runs after an install or upgrade."""

import re

import pytest

from tests.chart.rendering import Json, one, render


def steps_of(values: Json | None) -> tuple[list[str], Json]:
    """Return the commands of the job, and the job's spec."""
    spec = one(render(values), "Job", "ryla-rollout")["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    assert "initContainers" not in spec["template"]["spec"], "Helm does not print their logs"
    assert container["command"][:2] == ["sh", "-c"]
    return container["command"][2].split(" && "), spec


@pytest.mark.parametrize(
    ("values", "steps"),
    [
        ({}, ["ryla rollout", "ryla smoke"]),
        ({"mode": "pod", "preset": "demo"}, ["ryla smoke"]),
        ({"rollout": {"smoke": False}}, ["ryla rollout"]),
    ],
)
def test_all_steps_end_before_the_deadline(values: Json, steps: list[str]) -> None:
    commands, spec = steps_of(values)
    assert [" ".join(command.split()[:2]) for command in commands] == steps
    seconds = [int(found[1]) for command in commands if (found := re.search(r"--timeout (\d+)", command))]
    assert len(seconds) == len(steps)
    assert sum(seconds) <= spec["activeDeadlineSeconds"] - 60
