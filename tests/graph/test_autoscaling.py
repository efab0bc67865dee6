"""Ray's autoscaler with the groups of the rendered chart, and pretend accelerators: each comes from zero and goes again."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from helm.generate import ROOT
from tests.k8s.chart import groups, render, serve_config

pytestmark = pytest.mark.graph


def _no_ray_runs() -> bool:
    return not any(process.info["name"] == "gcs_server" for process in psutil.process_iter(["name"]))


def test_each_group_comes_from_zero_and_goes_again() -> None:
    deadline = time.monotonic() + 30  # that of the tests before may still be going
    while not _no_ray_runs():
        if time.monotonic() > deadline:
            pytest.skip("a Ray cluster runs on this machine: Ray's pretend cluster would stop it (`ray stop --force`)")
        time.sleep(1)
    objects = render()
    declared = {
        name: {resource: float(value) for resource, value in group["resources"].items()}
        for name, group in groups(objects).items()
    }
    arguments = serve_config(objects)["applications"][0]["args"]
    command = [sys.executable, str(Path(__file__).parent / "pretend.py"), json.dumps(declared), json.dumps(arguments)]
    # A folder of its own (with a short path: it holds sockets): what this cluster leaves there, later ones would take for one that runs.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "RAY_TMPDIR": folder}
        run = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=ROOT, env=environment)
    lines = [line for line in run.stdout.splitlines() if line.startswith("PLACED ")]
    assert lines, run.stdout[-3000:] + run.stderr[-3000:]
    l40s = {"before": [], "on": ["GPU", "accelerator_type:L40S"], "cpus": 4.0, "after": []}
    a100 = {"before": [], "on": ["GPU", "accelerator_type:A100", "accelerator_type:A100-80G"], "cpus": 4.0, "after": []}
    cpu = {"before": [], "on": ["ingress"], "cpus": 4.0, "after": []}
    placed = {"Wan26": l40s, "Wan22GGUF": a100, "FaceSwapper": l40s, "Ingress": cpu}
    assert json.loads(lines[0].removeprefix("PLACED ")) == placed
