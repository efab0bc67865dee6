"""Runs by itself: where do replicas land, and do their nodes go again? Prints `PLACED` and JSON.

    pretend.py WORKER_GROUPS ARGS

Both are JSON: the resources that each worker group declares, by its name, and AppConfig's values.
"""

import json
import sys
import time
from typing import Any

import ray
from ray import serve
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID
from ray.cluster_utils import AutoscalingCluster

from serve.app import _place
from serve.config import AppConfig

PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
KINDS = ("accelerator_type:", "ingress")
SCALE = {
    "min_replicas": 0,
    "max_replicas": 1,
    "upscale_delay_s": 0,
    "downscale_delay_s": 1,
    "downscale_to_zero_delay_s": 1,
    "metrics_interval_s": 0.2,
    "look_back_period_s": 0.5,
}


class PretendCluster(AutoscalingCluster):
    """Ray's own, with the base configuration that its wheel leaves out."""

    def _generate_config(self, head_resources: Any, worker_node_types: Any, autoscaler_v2: bool = False, **options: Any) -> Any:
        head = {"resources": head_resources, "node_config": {}, "max_workers": 0}
        nothing: dict[str, Any] = {key: {} for key in ("auth", "docker", "file_mounts")}
        steps = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
        return {
            "cluster_name": "pretend",
            "max_workers": 8,
            "upscaling_speed": 1.0,
            # `external`, because Ray wants a file of its own for the type `fake_multinode` that its wheel leaves out too.
            "provider": {"type": "external", "module": PROVIDER, "launch_multiple": True, "head_node_id": FAKE_HEAD_NODE_ID},
            "available_node_types": {**worker_node_types, "ray.head.default": head},
            "head_node_type": "ray.head.default",
            **nothing,
            **{f"{step}_commands": [] for step in steps},
            "cluster_synced_files": [],
            "file_mounts_sync_continuously": False,
            "rsync_exclude": [],
            "rsync_filter": [],
            **options,
        }


def _model(name: str) -> Any:
    @serve.deployment(name=name, autoscaling_config=SCALE)
    class Model:
        def where(self) -> str:
            return str(ray.get_runtime_context().get_node_id())

    return Model


def _kinds() -> list[str]:
    """What tells the nodes that are there apart."""
    resources = {name for node in ray.nodes() if node["Alive"] for name in node["Resources"]}
    return sorted(name for name in resources if name.startswith(KINDS))


def _try(name: str, options: dict[str, Any]) -> dict[str, Any]:
    serve.run(_model(name).options(ray_actor_options=options).bind(), name=name, route_prefix=None)
    before = _kinds()
    node = serve.get_app_handle(name).where.remote().result(timeout_s=90)
    resources = next(n["Resources"] for n in ray.nodes() if n["NodeID"] == node)
    deadline = time.monotonic() + 90
    while _kinds() and time.monotonic() < deadline:
        time.sleep(0.5)
    on = sorted(resource for resource in resources if resource.startswith(("GPU", *KINDS)))
    return {"before": before, "on": on, "cpus": resources["CPU"], "after": _kinds()}


def main() -> None:
    """The command."""
    groups, config = json.loads(sys.argv[1]), AppConfig.model_validate_json(sys.argv[2])
    types = {name: {"resources": r, "node_config": {}, "min_workers": 0, "max_workers": 2} for name, r in groups.items()}
    cluster = PretendCluster({"CPU": 0}, types, autoscaler_v2=True, idle_timeout_minutes=0.05)
    cluster.start()
    try:
        ray.init(address="auto", log_to_driver=False)
        serve.start(proxy_location="Disabled")
        models = {"Wan26": config.wan26, "Wan22GGUF": config.wan22_gguf, "FaceSwapper": config.face_swapper}
        options = {name: _place(model.hardware) for name, model in models.items()}
        options["Ingress"] = {"num_cpus": config.ingress.num_cpus, "resources": config.ingress.resources}
        print("PLACED", json.dumps({name: _try(name, each) for name, each in options.items()}))
        serve.shutdown()
        ray.shutdown()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
