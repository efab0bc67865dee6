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


def test_a_job_whose_key_is_missing_starts_and_knows_the_name_of_the_secret() -> None:
    objects = render({"auth": {"apiKeysSecret": "keys", "smokeKeySecret": "my-key"}})
    for kind, name, path in (("Job", "ryla-rollout", ("spec", "template", "spec")), ("Pod", "ryla-smoke", ("spec",))):
        pod = one(objects, kind, name)
        for key in path:
            pod = pod[key]
        env = {variable["name"]: variable for variable in pod["containers"][0]["env"]}
        reference = env["RYLA_API_KEY"]["valueFrom"]["secretKeyRef"]
        assert reference == {"name": "my-key", "key": "key", "optional": True}
        assert env["RYLA_API_KEY_SECRET"]["value"] == "my-key"
