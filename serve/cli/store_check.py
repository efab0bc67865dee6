"""Checks that all replicas of a service would have one store of jobs."""

from collections.abc import Iterator
from typing import Any

from serve.job_settings import JobSettings
from serve.jobs.files.fsspec_files import missing_package
from serve.models import INGRESS, RUNNER

REMEDY = "set args.jobs.store to a Redis and args.jobs.files to a folder or bucket that all of them reach"


def store_faults(settings: JobSettings, application: dict[str, Any], service: dict[str, Any] | None) -> Iterator[str]:
    """Yield a sentence if replicas on several nodes would each keep jobs of their own.

    The chart refuses the same values. Without ``service`` it is not known how many nodes there are,
    and several replicas on one machine share its disk.
    """
    if not settings.embedded:
        return
    deployments = [item for item in application.get("deployments", []) if item["name"] in (INGRESS, RUNNER)]
    if service is None:
        spread = [item["name"] for item in deployments if _most_replicas(item) > (item.get("max_replicas_per_node") or _MANY)]
        if spread:
            yield (
                "args.jobs.store is `embedded`, which keeps jobs on the disk of one machine, but max_replicas_per_node spreads "
                f"{' and '.join(spread)} over several: {REMEDY}"
            )
        return
    groups = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    pods = sum(_MANY if (most := group.get("maxReplicas")) is None else most for group in groups)
    if max(pods, *(_most_replicas(item) for item in deployments), 1) > 1:
        yield (
            "args.jobs.store is `embedded`, which keeps jobs on the disk of one pod, but replicas of the Ingress and the Runner "
            f"may run in several: {REMEDY}, or allow only one replica of each and one worker pod"
        )


def file_system_faults(settings: JobSettings) -> Iterator[str]:
    """Yield a sentence if the files of jobs cannot be reached with the packages of this machine."""
    if settings.files is not None and (missing := missing_package(settings.files)) is not None:
        yield f"args.jobs.files: {settings.files} cannot be opened on this machine: {missing}"


_MANY = 2**31 - 1
"""KubeRay's largest number of workers for a group that names none."""


def _most_replicas(deployment: dict[str, Any]) -> int:
    """Return the largest number of replicas that a deployment may have."""
    scale = deployment.get("autoscaling_config") or {}
    count = deployment.get("num_replicas") or 1
    if count == "auto":
        return max(2, int(scale.get("max_replicas", 100)))
    return max(int(count), scale.get("max_replicas") or 1)
