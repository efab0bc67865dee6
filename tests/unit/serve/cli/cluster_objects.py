"""Objects of a Kubernetes cluster, as its API returns them."""

from typing import Any

Json = dict[str, Any]


def service(*, observed: int = 2, ready: str = "True", upgrading: str = "False", application: str = "RUNNING") -> Json:
    return {
        "metadata": {"name": "ryla", "generation": 2},
        "status": {
            "observedGeneration": observed,
            "conditions": [
                {"type": "Ready", "status": ready, "message": "no endpoints"},
                {"type": "UpgradeInProgress", "status": upgrading},
            ],
            "activeServiceStatus": {"rayClusterName": "ryla-a", "applicationStatuses": {"ryla": {"status": application}}},
            "pendingServiceStatus": {
                "rayClusterName": "ryla-b",
                "applicationStatuses": {"ryla": {"status": "DEPLOY_FAILED", "message": "No module named 'serve'"}},
            },
        },
    }


def pod(cluster: str, reason: str | None) -> Json:
    state = {"waiting": {"reason": reason, "message": "not found"}} if reason else {"running": {}}
    return {
        "metadata": {"name": f"{cluster}-head", "labels": {"ray.io/cluster": cluster}},
        "status": {"containerStatuses": [{"name": "ray-head", "state": state}]},
    }
