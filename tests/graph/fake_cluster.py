"""A script that runs Ray's autoscaler with fake nodes, and reports where replicas are placed.

    python -m tests.graph.fake_cluster WORKER_GROUPS ARGS

WORKER_GROUPS is JSON: group name -> resources that a node of the group declares. ARGS is AppConfig
as JSON. The script calls all deployments, which have no replicas yet, and waits until their nodes
are gone again. It prints `PLACED` and JSON: the nodes before, that of each deployment, and those
after.
"""

import json
import sys
import time
from typing import Any

import ray
from ray import serve
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.cluster_utils import AutoscalingCluster

from serve.app import actor_options
from serve.config import AppConfig
from serve.models import MODELS

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
KINDS = ("accelerator_type:", "ingress")
"""Prefixes of the resources that tell the nodes of different groups apart."""
TIMEOUT_S = 90
"""Seconds that a replica may take to start, and that an idle node may take to be removed."""
SCALE = {
    "min_replicas": 0,
    "max_replicas": 1,
    "upscale_delay_s": 0,
    "downscale_delay_s": 1,
    "downscale_to_zero_delay_s": 1,
    "metrics_interval_s": 0.2,
    "look_back_period_s": 0.5,
}


class FakeCluster(AutoscalingCluster):
    """Ray's own fake cluster, with the base configuration that Ray's wheel lacks."""

    def _generate_config(self, head_resources: Any, worker_node_types: Any, autoscaler_v2: bool = False, **options: Any) -> Any:
        head = {"resources": head_resources, "node_config": {}, "max_workers": 0}
        empty: dict[str, Any] = {key: {} for key in ("auth", "docker", "file_mounts")}
        steps = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        return {
            "cluster_name": "fake",
            "max_workers": 8,
            "upscaling_speed": 1.0,
            # The type `fake_multinode` would need another file that Ray's wheel lacks.
            "provider": {"type": "external", "module": PROVIDER, "launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID},
            "available_node_types": {**worker_node_types, "ray.head.default": head},
            "head_node_type": "ray.head.default",
            **empty,
            **{f"{step}_commands": [] for step in steps},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
            **options,
        }


def _deployment(name: str) -> Any:
    @serve.deployment(name=name, autoscaling_config=SCALE)
    class Located:
        def node(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    return Located


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()
    return nodes


def _live_kinds() -> list[str]:
    """Return the resources of ``KINDS`` that the running nodes declare."""
    resources = {name for node in _nodes() if node["Alive"] for name in node["Resources"]}
    return sorted(name for name in resources if name.startswith(KINDS))


def _place(options: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the nodes before, that of each deployment with these options, and the nodes after."""
    for name, each in options.items():
        serve.run(_deployment(name).options(ray_actor_options=each).bind(), name=name, route_prefix=None)
    before = _live_kinds()
    calls = {name: serve.get_app_handle(name).node.remote() for name in options}
    nodes = {name: call.result(timeout_s=TIMEOUT_S) for name, call in calls.items()}
    resources = {node["NodeID"]: node["Resources"] for node in _nodes()}
    deadline = time.monotonic() + TIMEOUT_S
    while _live_kinds() and time.monotonic() < deadline:
        time.sleep(0.5)
    on = {name: _describe(resources[node]) for name, node in nodes.items()}
    return {"before": before, "on": on, "after": _live_kinds()}


def _describe(resources: dict[str, float]) -> dict[str, Any]:
    kinds = sorted(resource for resource in resources if resource.startswith(("GPU", *KINDS)))
    return {"kinds": kinds, "cpus": resources["CPU"]}


def main() -> None:
    """Run the script."""
    groups, config = json.loads(sys.argv[1]), AppConfig.model_validate_json(sys.argv[2])
    types = {name: {"resources": r, "node_config": {}, "min_workers": 0, "max_workers": 2} for name, r in groups.items()}
    cluster = FakeCluster({"CPU": 0}, types, autoscaler_v2=True, idle_timeout_minutes=0.05)
    cluster.start()
    try:
        ray.init(address="auto", log_to_driver=False)
        serve.start(proxy_location="Disabled")
        options = {model.deployment: actor_options(getattr(config, model.setting).hardware) for model in MODELS}
        options["Ingress"] = {"num_cpus": config.ingress.num_cpus, "resources": config.ingress.resources}
        print("PLACED", json.dumps(_place(options)))
        serve.shutdown()
        ray.shutdown()
    finally:
        cluster.shutdown()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    main()
