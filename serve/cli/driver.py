"""Starts Ray and deploys a config in it: the program that `ryla serve` runs and watches.

`python -m serve.cli.driver CONFIG REPORT` is `serve run CONFIG` that ends if the application cannot
be deployed. It writes the reason for which it ended, one line, to the file descriptor REPORT. Its
exit code is `NOT_STARTED` if Ray itself did not start, which is worth another try.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus, ApplicationStatusOverview
from ray.serve.scripts import cli

from serve.cli.processes import NOT_STARTED
from serve.pipelines.readiness import reason_of

POLL_S = 1.0


def main(config: str, report: int) -> int:
    """Run the service until a signal ends it; return the exit code."""
    reasons: list[str] = []
    threading.Thread(target=_await_deployment, args=(reasons.append,), daemon=True).start()
    # Ray lets its workers import from the folder of the program: not from this module's.
    sys.argv[0] = str(Path(sys.executable).with_name("serve"))
    address = os.environ.get("RAY_ADDRESS", "local")  # "local" starts a cluster of our own
    try:
        cli(["run", "--address", address, config], standalone_mode=False)
    except Exception as e:  # whatever it is, its reason goes to the one who started this program
        reasons.append(f"{type(e).__name__}: {e}")
        return 1 if ray.is_initialized() else NOT_STARTED
    except SystemExit as e:
        return 1 if reasons else int(e.code or 0)
    finally:
        os.write(report, "".join(reasons[:1]).replace("\n", " ").encode())
    return 0


def failure(applications: dict[str, ApplicationStatusOverview]) -> str | None:
    """Return why an application could not be deployed, in one line, or None."""
    for name, application in applications.items():
        if application.status == ApplicationStatus.DEPLOY_FAILED:
            failed = {
                deployment: reason_of(overview.message)
                for deployment, overview in application.deployments.items()
                if overview.status.value in ("DEPLOY_FAILED", "UNHEALTHY")
            }
            reasons = [f"{deployment}: {reason}" for deployment, reason in failed.items()]
            return "; ".join(reasons or [f"application {name}: {reason_of(application.message)}"])
    return None


def _await_deployment(fail: Callable[[str], None]) -> None:
    """Return when every application runs; if one cannot, say why and interrupt the main thread."""
    applications: dict[str, ApplicationStatusOverview] = {}
    while not applications or any(a.status != ApplicationStatus.RUNNING for a in applications.values()):
        time.sleep(POLL_S)
        if not ray.is_initialized():
            continue
        try:
            applications = serve.status().applications
        except (RayError, RayServeException):  # the controller is not up yet, or is being replaced
            continue
        if (reason := failure(applications)) is not None:
            fail(reason)
            os.kill(os.getpid(), signal.SIGINT)
            return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
