"""What the driver says of an application that cannot be deployed."""

from types import SimpleNamespace
from typing import Any

import pytest
from ray.serve.schema import ApplicationStatus

from serve.cli.driver import failure

TRACEBACK = "The deployment failed to start 3 times in a row.\nTraceback (most recent call last):\n  File ...\n{}"


def application(status: ApplicationStatus, message: str = "", **deployments: tuple[str, str]) -> Any:
    """Return what Serve says of an application: each deployment has a status and a message."""
    overviews = {
        name: SimpleNamespace(status=SimpleNamespace(value=state), message=text) for name, (state, text) in deployments.items()
    }
    return SimpleNamespace(status=status, message=message, deployments=overviews)


@pytest.mark.parametrize("status", [s for s in ApplicationStatus if s != ApplicationStatus.DEPLOY_FAILED])
def test_an_application_that_starts_or_runs_has_not_failed(status: ApplicationStatus) -> None:
    assert failure({"ryla": application(status, "Error: a retry", Wan26=("UPDATING", "ValueError: no"))}) is None


def test_the_deployments_that_failed_are_named_with_the_last_line_of_their_tracebacks() -> None:
    failed = application(
        ApplicationStatus.DEPLOY_FAILED,
        "Deployments failed",
        Ingress=("HEALTHY", ""),
        Wan26=("DEPLOY_FAILED", TRACEBACK.format("deployments.errors.CheckpointRefused: /models/x: no such folder")),
        FaceSwapper=("UNHEALTHY", TRACEBACK.format("OSError: no space left")),
    )
    assert failure({"ryla": failed}) == (
        "Wan26: deployments.errors.CheckpointRefused: /models/x: no such folder; FaceSwapper: OSError: no space left"
    )


def test_an_application_that_could_not_be_built_has_its_own_reason() -> None:
    failed = application(ApplicationStatus.DEPLOY_FAILED, TRACEBACK.format("ModuleNotFoundError: No module named 'x'"))
    assert failure({"ryla": failed}) == "application ryla: ModuleNotFoundError: No module named 'x'"
