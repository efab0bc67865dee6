"""Ray's autoscaler scales the chart's worker groups on fake nodes.

The test needs a machine without any other Ray cluster. Its name sorts first in this folder, so it
runs before the other tests start theirs.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import psutil
import pytest

from helm.generator.paths import ROOT
from serve.models import FACE_SWAPPER, WAN22_GGUF, WAN26
from tests.chart.rendering import declared_resources, groups, render, serve_config

pytestmark = pytest.mark.graph


def _ray_is_running() -> bool:
    return any(process.info["name"] == "gcs_server" for process in psutil.process_iter(["name"]))


def test_all_groups_scale_from_zero_and_back() -> None:
    deadline = time.monotonic() + 30  # the cluster of an earlier test may still be stopping
    while _ray_is_running():
        if time.monotonic() > deadline:
            pytest.skip("a Ray cluster runs on this machine, and the fake cluster would stop it; run `ray stop --force`")
        time.sleep(1)
    objects = render()
    declared = {
        name: {resource: float(value) for resource, value in declared_resources(group).items()}
        for name, group in groups(objects).items()
    }
    arguments = serve_config(objects)["applications"][0]["args"]
    command = [sys.executable, "-m", "tests.graph.fake_cluster", json.dumps(declared), json.dumps(arguments)]
    # Its own folder, or later clusters would mistake what this one leaves behind for a running one.
    # The path is short, since the folder contains sockets.
    with tempfile.TemporaryDirectory(prefix="ray", dir="/tmp", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "RAY_TMPDIR": folder}
        run = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=ROOT, env=environment)
    lines = [line for line in run.stdout.splitlines() if line.startswith("PLACED ")]
    assert lines, run.stdout[-3000:] + run.stderr[-3000:]
    l40s = {"kinds": ["GPU", "accelerator_type:L40S"], "cpus": 4.0}
    a100 = {"kinds": ["GPU", "accelerator_type:A100", "accelerator_type:A100-80G"], "cpus": 4.0}
    cpu = {"kinds": ["ingress"], "cpus": 4.0}
    on = {WAN26.deployment: l40s, WAN22_GGUF.deployment: a100, FACE_SWAPPER.deployment: l40s, "Ingress": cpu}
    assert json.loads(lines[0].removeprefix("PLACED ")) == {"before": [], "on": on, "after": []}
