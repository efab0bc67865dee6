"""The load test: a master and its workers, each a Job, against the Service of the release."""

import argparse
from pathlib import Path

import pytest

from helm.generator.values import LoadTest
from loadtest.options import add_options
from loadtest.payloads import SIZES
from loadtest.stages import SHAPES
from tests.chart.rendering import Json, Refused, one, render

IMAGE = "registry.example/ryla-serve:load"
ROOT = Path(__file__).parents[2]


def loaded(**values: object) -> list[Json]:
    return render({"loadtest": {"enabled": True, "image": IMAGE, **values}})


def container(objects: list[Json], role: str) -> Json:
    pod = one(objects, "Job", f"ryla-loadtest-{role}-1")["spec"]["template"]["spec"]
    found: Json = pod["containers"][0]
    return found


def option(command: list[str], name: str) -> str:
    return command[command.index(name) + 1]


def test_no_load_is_sent_by_default() -> None:
    assert not [o for o in render() if "loadtest" in o["metadata"]["name"]]


def test_the_master_waits_for_its_workers_and_loads_the_service() -> None:
    objects = loaded(workers=3, users=30, seconds=600, shape="spike", size="short", thresholds=["result:*:p95<=9", "errors<=0"])
    master = container(objects, "master")
    command = master["command"]
    assert option(command, "--expect-workers") == "3"
    assert option(command, "--users") == "30"
    assert option(command, "--run-time") == "600s"
    assert option(command, "--shape") == "spike"
    assert option(command, "--host") == "$(RYLA_URL)"
    assert {"name": "RYLA_URL", "value": "http://ryla:8000"} in master["env"]
    assert [command[i + 1] for i, word in enumerate(command) if word == "--threshold"] == ["result:*:p95<=9", "errors<=0"]
    workers = one(objects, "Job", "ryla-loadtest-worker-1")["spec"]
    assert workers["parallelism"] == workers["completions"] == 3


def test_every_worker_finds_the_master_by_the_name_of_its_service() -> None:
    objects = loaded()
    name = option(container(objects, "worker")["command"], "--master-host")
    service = one(objects, "Service", name)["spec"]
    for role, is_found in (("master", True), ("worker", False)):
        labels = one(objects, "Job", f"ryla-loadtest-{role}-1")["spec"]["template"]["metadata"]["labels"]
        assert (service["selector"].items() <= labels.items()) is is_found
    assert service["ports"][0]["port"] == 5557, "the port on which Locust's master listens"


@pytest.mark.parametrize("role", ["master", "worker"])
def test_both_run_in_the_image_with_locust_and_may_call_the_service(role: str) -> None:
    objects = loaded(resources={"limits": {"memory": "3Gi"}})
    found = container(objects, role)
    assert found["image"] == IMAGE
    assert found["resources"]["limits"] == {"memory": "3Gi"}
    template = one(objects, "Job", f"ryla-loadtest-{role}-1")["spec"]["template"]
    assert template["metadata"]["labels"]["app.kubernetes.io/component"] == "job", "the network policy lets these in"
    assert template["spec"]["automountServiceAccountToken"] is False
    (file,) = [word for word in found["command"] if word.endswith("locustfile.py")]
    assert (ROOT / Path(file).relative_to("/opt/app")).is_file()
    assert f"COPY loadtest {Path(file).parent}" in (ROOT / "Dockerfile").read_text()


def test_the_jobs_have_the_time_that_the_load_takes() -> None:
    for role in ("master", "worker"):
        assert one(loaded(seconds=7200), "Job", f"ryla-loadtest-{role}-1")["spec"]["activeDeadlineSeconds"] > 7200 + 600


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"loadtest": {"enabled": True}}, "requires loadtest.image"),
        (
            {"loadtest": {"enabled": True, "image": IMAGE}, "auth": {"apiKeysSecret": "keys"}, "rollout": {"smoke": False}},
            "the load test needs an API key",
        ),
        (
            {
                "loadtest": {"enabled": True, "image": IMAGE},
                "upgrade": {"strategy": "NewClusterWithIncrementalUpgrade", "incremental": {"gatewayClassName": "g"}},
            },
            "has no endpoints",
        ),
    ],
)
def test_a_load_test_that_could_not_run_is_refused(values: Json, said: str) -> None:
    with pytest.raises(Refused) as caught:
        render(values)
    assert said in str(caught.value)


def test_the_values_are_what_the_load_test_takes() -> None:
    properties = LoadTest.model_json_schema()["properties"]
    assert properties["shape"]["enum"] == list(SHAPES)
    assert properties["size"]["enum"] == list(SIZES)


def test_our_own_options_are_known_to_the_load_test() -> None:
    parser = argparse.ArgumentParser()
    add_options(parser)
    known = {name for action in parser._actions for name in action.option_strings}
    assert {"--shape", "--size", "--threshold"} <= known
