"""Replicas are placed on a Ray cluster whose nodes declare the GPUs of production."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from serve.models import FACE_SWAPPER, MODELS, WAN22_GGUF, WAN26

pytestmark = pytest.mark.graph

SCRIPT = """
import json
import ray
from ray import serve
from ray.cluster_utils import Cluster
from ray.util.state import list_actors, list_nodes
from serve.app import build
from serve.config import AppConfig

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": True, "dashboard_port": 8299})
for kind in ("L40S", "L40S", "A100-80G", "T4"):
    cluster.add_node(num_cpus=1, num_gpus=1, resources={f"accelerator_type:{kind}": 1}, labels={"ray.io/accelerator-type": kind})
ray.init(address=cluster.address, log_to_driver=False)
place = lambda kind: {"hardware": {"num_cpus": 0.5, "num_gpus": 1, "accelerator_type": kind}, "engine": {"device": "cpu"}}
config = AppConfig.model_validate({
    "wan26": place("L40S"), "wan22_gguf": place("A100-80G"), "face_swapper": place("L40S"), "ingress": {"num_cpus": 0.5},
})
serve.start(proxy_location="Disabled")
serve.run(build(config), name="placed")
kinds = {n.node_id: [r.split(":")[1] for r in n.resources_total if r.startswith("accelerator_type:")] for n in list_nodes(detail=True)}
actors = list_actors(filters=[("state", "=", "ALIVE")], detail=True)
print("PLACED", json.dumps({
    a.class_name.split(":")[2]: [a.node_id, *kinds[a.node_id]] for a in actors if a.class_name.startswith("ServeReplica:placed")
}))
serve.shutdown()
ray.shutdown()
cluster.shutdown()
"""


def test_each_deployment_lands_on_its_own_kind_of_gpu(tmp_path: Path) -> None:
    """The test runs in its own process, because it starts a second Ray cluster."""
    script = tmp_path / "place.py"
    script.write_text(textwrap.dedent(SCRIPT))
    run = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2]
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("PLACED ")]
    assert lines, run.stdout[-3000:] + run.stderr[-3000:]
    placed = json.loads(lines[0].removeprefix("PLACED "))
    assert {name: where[1:] for name, where in placed.items() if name not in ("Ingress", "Runner")} == {
        WAN26.deployment: ["L40S"],
        WAN22_GGUF.deployment: ["A100-80G"],
        FACE_SWAPPER.deployment: ["L40S"],
    }
    assert placed[WAN26.deployment][0] != placed[FACE_SWAPPER.deployment][0]  # each has a whole GPU
    assert set(placed) == {"Ingress", "Runner", *(model.deployment for model in MODELS)}
