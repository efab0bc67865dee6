"""Which changes KubeRay applies in place and which start a new cluster, as docs/operations.md says.

KubeRay compares a hash of ``rayClusterConfig`` without each group's replicas and tolerations (v1.7,
GenerateHashWithoutReplicasAndWorkersToDelete). Groups appended at the end are also added in place.
"""

import copy

import pytest

from tests.chart.rendering import Json, one, render


def _compared(values: Json, groups: int | None = None) -> Json:
    spec: Json = copy.deepcopy(one(render(values), "RayService")["spec"]["rayClusterConfig"])
    spec["workerGroupSpecs"] = spec["workerGroupSpecs"][:groups]
    for group in spec["workerGroupSpecs"]:
        for name in ("replicas", "minReplicas", "maxReplicas"):
            del group[name]
        group["template"]["spec"].pop("tolerations", None)
    spec["headGroupSpec"]["template"]["spec"].pop("tolerations", None)
    return spec


@pytest.mark.parametrize(
    "values",
    [
        {"config": {"limits": {"max_frames": 41}}},
        {"deployments": {"Wan26": {"autoscaling_config": {"min_replicas": 1}}}},
        {"workerGroups": {"l40s": {"maxReplicas": 9}}},
        {"workerGroups": {"l40s": {"tolerations": [{"key": "mine", "operator": "Exists"}]}}},
        {"commonLabels": {"team": "video"}},
        {"requestTimeoutSeconds": 3000},
        {"upgrade": {"clusterDeletionDelaySeconds": 60}},
        {"ingress": {"enabled": True, "hosts": [{"host": "a.example"}]}},
        {"metrics": {"podMonitor": True}},
    ],
)
def test_changes_that_are_applied_in_place(values: Json) -> None:
    assert _compared(values) == _compared({})


def test_an_appended_group_is_added_in_place() -> None:
    values: Json = {"extraWorkerGroups": [{"name": "h100", "accelerator": "H100", "gpus": 1}]}
    assert _compared(values, groups=3) == _compared({})
    assert one(render(values), "RayService")["spec"]["rayClusterConfig"]["workerGroupSpecs"][3]["groupName"] == "h100"


@pytest.mark.parametrize(
    "values",
    [
        {"image": {"tag": "2.0.0"}},
        {"workerGroups": {"l40s": {"gpus": 2}}},
        {"workerGroups": {"l40s": {"drainSeconds": 300}}},
        {"workerGroups": {"l40s": {"enabled": False}}},
        {"head": {"resources": {"requests": {"cpu": "4"}}}},
        {"env": [{"name": "A", "value": "b"}]},
        {"auth": {"rayTokenSecret": "other"}},
        {"auth": {"apiKeysSecret": "keys", "smokeKeySecret": "key"}},
        # Serve's proxies read these settings from their environment.
        {"config": {"limits": {"max_body_bytes": 1000}}},
        {"config": {"ingress": {"cors_origins": ["https://a.example"]}}},
        {"autoscaler": {"idleTimeoutSeconds": 60}},
    ],
)
def test_changes_that_start_a_new_cluster(values: Json) -> None:
    assert _compared(values) != _compared({})
