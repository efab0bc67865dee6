"""`ryla top` and `ryla profile` beside a running service, and what the dashboard says of it."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from serve.cli.ray_dashboard import RayDashboard
from tests.graph.conftest import ROOT, Service

pytestmark = pytest.mark.graph


def ryla(*words: str) -> str:
    """Run a command of this checkout, and return what it printed."""
    command = [sys.executable, "-m", "serve.cli.main", *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_top_lists_every_deployment_of_the_service(service: Service) -> None:
    lines = [line.split("\t") for line in ryla("top", "--once", "--url", service.url).splitlines()]
    deployments = {line[1]: line for line in lines if line[0] == "deployment"}
    assert {"Ingress", "Runner", "Wan26", "Wan22GGUF", "FaceSwapper"} <= deployments.keys()
    assert deployments["Wan26"][2] == "ready"


def test_the_dashboard_knows_the_replicas_as_actors_and_the_object_store(service: Service) -> None:
    with RayDashboard() as dashboard:
        actors, nodes = dashboard.actors(), dashboard.nodes()
    assert actors["ServeReplica:ryla:Ingress"] == 1
    assert len(nodes) == 1
    assert nodes[0].object_store_bytes >= 0


def test_the_trace_of_a_replica_has_the_operators_of_its_video(service: Service, tmp_path: Path) -> None:
    ryla("profile", "--no-flame", "--save", str(tmp_path), "--size", "64x64x5x2", "--url", service.url)
    events = json.loads(gzip.decompress((tmp_path / "wan26-trace.json.gz").read_bytes()))["traceEvents"]
    names = {event.get("name") for event in events}
    assert "aten::conv3d" in names, "the VAE has decoded frames"
    assert names & {"aten::linear", "aten::addmm"}, "the transformer has denoised"


@pytest.mark.skipif(os.geteuid() != 0, reason="py-spy needs root")
def test_the_flame_graph_is_of_the_ingress(service: Service, tmp_path: Path) -> None:
    # A sampler sees the ingress at work by chance, and seldom where other processes take the CPU
    # time: it looks longer until it has seen it.
    picture = ""
    for seconds in (5, 15, 45, 135):
        ryla("profile", "--no-trace", "--save", str(tmp_path), "--seconds", str(seconds), "--url", service.url)
        picture = (tmp_path / "ingress-flame.svg").read_text()
        if "serve/http" in picture:
            break
    assert "<svg" in picture
    assert "serve/http" in picture
