"""A script that runs Ray's autoscaler with fake nodes, and reports where replicas are placed.

    python -m tests.graph.fake_cluster WORKER_GROUPS ARGS

WORKER_GROUPS is JSON: group name -> resources that a node of the group declares. ARGS is AppConfig
as JSON. The script calls all deployments, which have no replicas yet, and waits until their nodes
are gone again. It prints `PLACED` and JSON: the nodes before, that of each deployment, and those
after.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID

from serve.app import actor_options
from serve.cli.processes import ProcessTree, adopt_orphans
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


def configuration(address: str, worker_groups: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return the autoscaler's configuration: a head without CPUs, and groups that begin empty."""
    empty: dict[str, Any] = {key: {} for key in ("auth", "docker", "file_mounts")}
    steps = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    groups = {
        name: {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": 2}
        for name, resources in worker_groups.items()
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    return {
        "cluster_name": "fake",
        "max_workers": 8,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 0.05,
        # The type `fake_multinode` would need another file that Ray's wheel lacks.
        "provider": {
            "type": "external",
            "module": PROVIDER,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "gcs_address": address,
        },
        "available_node_types": {**groups, "ray.head.default": head},
        "head_node_type": "ray.head.default",
        **empty,
        **{f"{step}_commands": [] for step in steps},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
    }


@contextmanager
def fake_cluster(worker_groups: dict[str, dict[str, float]]) -> Iterator[str]:
    """Run a cluster whose autoscaler starts a raylet for each node; give its address.

    Ray's own class for this, `AutoscalingCluster`, stops by their names all processes of Ray that
    it finds on the machine, before its start and at its end. This stops its own ones only.
    """
    variables = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
    }
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"{ray.util.get_node_ip_address()}:{port}"
    adopt_orphans()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "autoscaler.json")
        file.write_text(json.dumps(configuration(address, worker_groups)))
        start = ["ray", "start", "--head", "--num-cpus=0", f"--port={port}", f"--autoscaling-config={file}"]
        try:
            subprocess.run(start, check=True, env={**os.environ, **variables}, stdout=sys.stderr)
            yield address
        finally:
            left = ProcessTree().kill()
            assert not left, f"processes of Ray that could not be killed: {left}"


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
    with fake_cluster(groups) as address:
        ray.init(address=address, log_to_driver=False)
        try:
            serve.start(proxy_location="Disabled")
            options = {model.deployment: actor_options(getattr(config, model.setting).hardware) for model in MODELS}
            options["Ingress"] = {"num_cpus": config.ingress.num_cpus, "resources": config.ingress.resources}
            print("PLACED", json.dumps(_place(options)))
            serve.shutdown()
        finally:
            ray.shutdown()  # without its cluster, this process would be ended before it says why


if __name__ == "__main__":
    main()
