"""Ray's autoscaler with the groups of the rendered chart, and pretend accelerators: each comes from zero and goes again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from helm.generate import ROOT
from tests.k8s.chart import groups, render, serve_config

pytestmark = pytest.mark.graph

SCRIPT = """
import json, os, sys, time
os.environ.update(RAY_SERVE_CONTROL_LOOP_INTERVAL_S="0.1")
import ray
from ray import serve
from ray.cluster_utils import AutoscalingCluster
from serve.app import _place
from serve.config import AppConfig

GROUPS, ARGS = json.loads(sys.argv[1]), json.loads(sys.argv[2])
SCALE = {"min_replicas": 0, "max_replicas": 1, "upscale_delay_s": 0, "downscale_delay_s": 1, "downscale_to_zero_delay_s": 1,
         "metrics_interval_s": 0.2, "look_back_period_s": 0.5}


def model(name):
    @serve.deployment(name=name, autoscaling_config=SCALE)
    class Model:
        def __init__(self, *_):
            pass

        def where(self):
            return ray.get_runtime_context().get_node_id()

    return Model


cluster = AutoscalingCluster(
    head_resources={"CPU": 0},
    worker_node_types={
        name: {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": 2} for name, resources in GROUPS.items()
    },
    autoscaler_v2=True,
    idle_timeout_minutes=0.05,
)
cluster.start(_system_config={"autoscaler_update_interval_s": 0.5})
try:
    ray.init(address="auto", log_to_driver=False)
    serve.start(proxy_location="Disabled")
    config = AppConfig.model_validate(ARGS)
    placed = {}
    kinds = lambda: sorted({k for n in ray.nodes() if n["Alive"] for k in n["Resources"] if k.startswith("accelerator_type:")})
    for name, hardware in (("Wan26", config.wan26), ("Wan22GGUF", config.wan22_gguf), ("FaceSwapper", config.face_swapper)):
        serve.run(model(name).options(ray_actor_options=_place(hardware.hardware)).bind(), name=name, route_prefix=None)
        before = kinds()
        node = serve.get_app_handle(name).where.remote().result(timeout_s=90)
        resources = next(n["Resources"] for n in ray.nodes() if n["NodeID"] == node)
        placed[name] = {"before": before, "on": sorted(k for k in resources if k.startswith(("accelerator_type:", "GPU"))),
                        "cpus": resources["CPU"]}
        deadline = time.monotonic() + 90
        while kinds() and time.monotonic() < deadline:
            time.sleep(0.5)
        placed[name]["after"] = kinds()
    print("PLACED", json.dumps(placed))
    serve.shutdown()
    ray.shutdown()
finally:
    cluster.shutdown()
"""


def test_each_group_comes_from_zero_and_goes_again(tmp_path: Path) -> None:
    objects = render()
    declared = {
        name: {resource: float(value) for resource, value in group["resources"].items()}
        for name, group in groups(objects).items()
    }
    arguments = serve_config(objects)["applications"][0]["args"]
    script = tmp_path / "scale.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), json.dumps(declared), json.dumps(arguments)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=ROOT)
    lines = [line for line in run.stdout.splitlines() if line.startswith("PLACED ")]
    assert lines, run.stdout[-3000:] + run.stderr[-3000:]
    l40s = {"before": [], "on": ["GPU", "accelerator_type:L40S"], "cpus": 8.0, "after": []}
    a100 = {"before": [], "on": ["GPU", "accelerator_type:A100", "accelerator_type:A100-80G"], "cpus": 8.0, "after": []}
    assert json.loads(lines[0].removeprefix("PLACED ")) == {"Wan26": l40s, "Wan22GGUF": a100, "FaceSwapper": l40s}
