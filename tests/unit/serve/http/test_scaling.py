"""The replicas of the ingress for what they are asked."""

from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from serve.cli.presets import PRESETS
from serve.http import scaling


def context(*, replicas: int, requests: float, listeners: dict[str, float]) -> Any:
    """Return what Serve tells a policy."""
    return SimpleNamespace(
        current_num_replicas=replicas,
        target_num_replicas=replicas or 1,
        total_num_requests=requests,
        aggregated_metrics={"listeners": listeners} if listeners else {},
        config=SimpleNamespace(get_target_ongoing_requests=lambda: 16),
    )


@pytest.mark.parametrize(
    ("requests", "listeners", "wanted"),
    [
        (32, {}, 2),
        (500, {"a": 250, "b": 250}, 0),
        (532, {"a": 300, "b": 200}, 2),
        (490, {"a": 250, "b": 250}, 0),
    ],
    ids=["work only", "listeners only", "both", "counts of different moments"],
)
def test_listeners_are_no_work(requests: float, listeners: dict[str, float], wanted: float) -> None:
    replicas, state = scaling.by_requests_at_work(context(replicas=2, requests=requests, listeners=listeners))
    assert (replicas, state) == (wanted, {})


def test_a_service_without_replicas_keeps_its_target() -> None:
    assert scaling.by_requests_at_work(context(replicas=0, requests=0, listeners={}))[0] == 1


def test_production_scales_its_ingress_by_this_policy() -> None:
    (application,) = yaml.safe_load((PRESETS / "production.yaml").read_text())["applications"]
    (ingress,) = [deployment for deployment in application["deployments"] if deployment["name"] == "Ingress"]
    policy = ingress["autoscaling_config"]["policy"]["policy_function"]
    assert policy == f"{scaling.__name__}:{scaling.by_requests_at_work.__name__}"
