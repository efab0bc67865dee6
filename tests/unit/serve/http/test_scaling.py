"""The replicas of the ingress for what they are asked."""

from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from serve.cli.presets import PRESETS
from serve.http import scaling


def context(at_work: dict[str, float]) -> Any:
    """Return what Serve tells a policy while 500 requests are there, most of which listen."""
    return SimpleNamespace(
        target_num_replicas=3,
        total_num_requests=500.0,
        aggregated_metrics={scaling.AT_WORK: at_work} if at_work else {},
        config=SimpleNamespace(get_target_ongoing_requests=lambda: 16),
    )


@pytest.mark.parametrize(
    ("at_work", "wanted"),
    [({"a": 20, "b": 12}, 2), ({"a": 0, "b": 0}, 0), ({"a": 4}, 0.25)],
    ids=["work", "listeners only", "a little"],
)
def test_only_requests_at_work_need_replicas(at_work: dict[str, float], wanted: float) -> None:
    assert scaling.by_requests_at_work(context(at_work)) == (wanted, {})


def test_the_target_stays_until_a_replica_has_reported() -> None:
    assert scaling.by_requests_at_work(context({})) == (3, {})


def test_production_scales_its_ingress_by_this_policy() -> None:
    (application,) = yaml.safe_load((PRESETS / "production.yaml").read_text())["applications"]
    (ingress,) = [deployment for deployment in application["deployments"] if deployment["name"] == "Ingress"]
    policy = ingress["autoscaling_config"]["policy"]["policy_function"]
    assert policy == f"{scaling.__name__}:{scaling.by_requests_at_work.__name__}"
