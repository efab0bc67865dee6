"""The state of each model, from what Serve's controller reports."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.serve._private.common import DeploymentStatusTrigger, ReplicaState
from ray.serve.schema import DeploymentDetails, ReplicaDetails

from deployments import hardware
from serve.models import MODELS
from serve.pipelines import readiness as readiness_module
from serve.pipelines.readiness import ModelState, Readiness, StateUnknown

TRACEBACK = """The deployment failed to start 3 times in a row.

Traceback (most recent call last):
  File "/app/deployments/wan26.py", line 40, in __init__
    raise CheckpointRefused(text)
deployments.errors.CheckpointRefused: /models/wan: no model_index.json
"""


Details = dict[str, Any]


def overview(replicas: dict[str, int], status_trigger: str = "CONFIG_UPDATE_COMPLETED", message: str = "") -> Details:
    """Return the details of a deployment whose replicas are in the given states."""
    states = [{"state": ReplicaState(state).value} for state, count in replicas.items() for _ in range(count)]
    return {"status_trigger": DeploymentStatusTrigger(status_trigger).value, "message": message, "replicas": states}


def status_of(**deployments: Details) -> dict[str, Details]:
    """Return the details of all deployments; models not given have one running replica."""
    others = {model.deployment: overview({"RUNNING": 1}) for model in MODELS}
    return {**others, "Runner": overview({"RUNNING": 1}), **deployments}


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Sets the function that answers instead of Serve's controller."""
    monkeypatch.setattr(hardware, "read", lambda app, deployment: f"{app}'s {deployment} on a CPU")

    def set_answer(answer: Callable[[], Any]) -> None:
        monkeypatch.setattr(readiness_module, "deployments_of", lambda application: answer())

    return set_answer


Report = Callable[[Callable[[], Any]], None]


@pytest.mark.parametrize(
    ("replicas", "fields", "state"),
    [
        ({"RUNNING": 2, "STARTING": 1}, {}, ModelState("ready", 2, hardware="ryla's Wan26 on a CPU")),
        ({"STARTING": 1}, {}, ModelState("starting", 0)),
        ({"STARTING": 1, "STOPPING": 1}, {}, ModelState("starting", 0)),
        ({"STOPPING": 1}, {}, ModelState("asleep", 0)),
        ({}, {}, ModelState("asleep", 0)),
        (
            {"STARTING": 1},
            {"status_trigger": "REPLICA_STARTUP_FAILED", "message": TRACEBACK},
            ModelState("failed", 0, "deployments.errors.CheckpointRefused: /models/wan: no model_index.json"),
        ),
        (
            {},
            {"status_trigger": "REPLICA_STARTUP_FAILED", "message": ""},
            ModelState("failed", 0, "the replica did not start"),
        ),
        (  # Serve replaces a replica that died, so this is not a failure
            {"STARTING": 1},
            {"status_trigger": "HEALTH_CHECK_FAILED", "message": TRACEBACK},
            ModelState("starting", 0),
        ),
    ],
)
async def test_the_replicas_of_a_deployment_decide_the_state_of_its_model(
    report: Report, replicas: dict[str, int], fields: dict[str, Any], state: ModelState
) -> None:
    report(lambda: status_of(Wan26=overview(replicas, **fields)))
    assert await Readiness("ryla").of("wan26") == state


@pytest.mark.parametrize(
    ("message", "reason"), [("first\n  last line  \n", "last line"), (f"ValueError: {'x' * 600}", f"ValueError: {'x' * 488}")]
)
async def test_a_reason_is_one_line_of_at_most_500_characters(report: Report, message: str, reason: str) -> None:
    failed = overview({}, status_trigger="REPLICA_STARTUP_FAILED", message=message)
    report(lambda: status_of(FaceSwapper=failed))
    assert (await Readiness("ryla").of("face-swapper")).reason == reason


async def test_every_model_is_known_by_its_name_in_the_api(report: Report) -> None:
    report(status_of)
    states = await Readiness("ryla").all()
    assert {name: state.hardware for name, state in states.items()} == {
        "wan26": "ryla's Wan26 on a CPU",
        "wan22-gguf": "ryla's Wan22GGUF on a CPU",
        "face-swapper": "ryla's FaceSwapper on a CPU",
    }


async def test_an_application_that_is_unknown_yet_has_no_states(report: Report) -> None:
    def unknown() -> Any:
        raise KeyError("ryla")

    report(unknown)
    with pytest.raises(StateUnknown):
        await Readiness("ryla").all()


async def test_a_controller_that_is_away_has_no_states(report: Report) -> None:
    def away() -> Any:
        raise RayActorError

    report(away)
    with pytest.raises(StateUnknown):
        await Readiness("ryla").of("wan26")


async def test_a_fault_of_the_code_is_not_taken_for_an_absent_controller(report: Report) -> None:
    def broken() -> Any:
        raise ZeroDivisionError

    report(broken)
    with pytest.raises(ZeroDivisionError):
        await Readiness("ryla").all()


async def test_callers_at_the_same_time_and_soon_after_share_one_question(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def answer() -> dict[str, Details]:
        asked.append(1)
        return status_of()

    report(answer)
    monkeypatch.setattr(readiness_module, "MAX_AGE_S", 3600.0)
    readiness = Readiness("ryla")
    first, second = await asyncio.gather(readiness.all(), readiness.all())
    assert first == second == await readiness.all()
    assert len(asked) == 1


async def test_an_old_answer_is_asked_for_anew(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [status_of(), status_of(Wan26=overview({}))]
    report(lambda: answers.pop(0))
    monkeypatch.setattr(readiness_module, "MAX_AGE_S", -1.0)
    readiness = Readiness("ryla")
    assert [(await readiness.of("wan26")).state for _ in range(2)] == ["ready", "asleep"]


async def test_a_slow_controller_is_not_waited_for_but_its_answer_is_used(
    report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, asked = threading.Event(), []

    def answer() -> dict[str, Details]:
        asked.append(1)
        assert release.wait(60)
        return status_of()

    report(answer)
    monkeypatch.setattr(readiness_module, "MAX_AGE_S", 3600.0)
    monkeypatch.setattr(readiness_module, "TIMEOUT_S", 0.01)
    readiness = Readiness("ryla")
    for _ in range(2):
        with pytest.raises(StateUnknown):
            await readiness.all()
    release.set()
    monkeypatch.setattr(readiness_module, "TIMEOUT_S", 60.0)
    assert (await readiness.of("wan26")).state == "ready"
    assert len(asked) == 1, "the question that was under way is not asked again"


def test_serve_still_reports_what_is_read() -> None:
    """A new version of Ray may rename a field."""
    assert {"status_trigger", "message", "replicas"} <= set(DeploymentDetails.model_fields)
    assert "state" in ReplicaDetails.model_fields


def test_without_serve_no_application_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness_module, "_get_global_client", lambda raise_if_no_controller_running: None)
    with pytest.raises(KeyError, match="ryla"):
        readiness_module.deployments_of("ryla")
