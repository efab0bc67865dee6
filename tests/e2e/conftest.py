"""Fixtures of the end-to-end tests, and their report: what was measured, and what did not run."""

import hashlib
import json
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache

import pytest

from tests.chart.rendering import APIS
from tests.e2e.cluster import Cluster, Json, run

FIGURES: list[tuple[str, str]] = []
KEY = secrets.token_urlsafe(24)
SHARED = "ryla-shared"
"""The claim of the folder that the pods share, which the tests create."""


def figure(what: str, value: str) -> None:
    """Add a line to the report."""
    FIGURES.append((what, value))


def key_line(name: str, key: str) -> str:
    """Return the line of an API key in the Secret with the API keys."""
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}"


@cache
def missing_apis() -> tuple[str, ...]:
    """Return those of ``APIS`` that the cluster does not serve."""
    served = run("kubectl", "api-versions", check=False).stdout.split()
    return tuple(api for api in APIS if api not in served)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("report")
    for what, value in FIGURES:
        terminalreporter.write_line(f"{what}: {value}")
    terminalreporter.write_line(
        "did not run: enforcement of NetworkPolicies (the cluster may not enforce them; tests/chart evaluates them)"
    )
    if os.environ.get("KUBECONFIG") and missing_apis():
        terminalreporter.write_line(
            f"did not run: objects of {', '.join(missing_apis())} (the cluster does not serve these APIs)"
        )
    skipped = Counter(
        (report.nodeid.partition("::")[0], report.longrepr[2]) for report in terminalreporter.stats.get("skipped", [])
    )
    for (file, reason), count in skipped.items():
        terminalreporter.write_line(f"did not run: {count} of {file}: {reason}")


def _namespace(name: str) -> Iterator[Cluster]:
    for program in ("kubectl", "helm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("KUBECONFIG is not set; see tests/e2e/README.md")
    cluster = Cluster(name, os.environ.get("RYLA_E2E_IMAGE", "localhost/ryla-serve:cpu"))
    run("kubectl", "delete", "namespace", name, "--ignore-not-found", "--timeout=300s", timeout_s=320)
    run("kubectl", "delete", "persistentvolume", name, "--ignore-not-found", "--timeout=60s")
    run("kubectl", "create", "namespace", name)
    run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    cluster.secret("ryla-api-keys", keys=key_line("smoke", KEY))
    cluster.secret("ryla-smoke-key", key=KEY)
    cluster.secret("ryla-redis", password=secrets.token_hex(16))
    cluster.secret("ryla-ray-token", auth_token=secrets.token_hex(32))
    shared = _shared_folder(name)
    run("kubectl", "apply", "-f", "-", text=json.dumps(shared))
    yield cluster
    run("kubectl", "delete", "namespace", name, "--timeout=300s", timeout_s=320)
    run("kubectl", "delete", "persistentvolume", name, "--timeout=60s")


def _shared_folder(namespace: str) -> Json:
    """Return the node's /tmp as a volume and the claim for it, which the pods share.

    The restricted level allows a claim, but no hostPath in a pod.
    """
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": SHARED, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteMany"],
            "storageClassName": "",
            "volumeName": namespace,
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }
    shared = node_volume(namespace, "/tmp", storage_class="", claim={"namespace": namespace, "name": SHARED})
    return {"apiVersion": "v1", "kind": "List", "items": [shared, claim]}


def node_volume(name: str, path: str, *, storage_class: str, claim: Json) -> Json:
    """Return a folder of the node as a volume for one claim."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteMany", "ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": storage_class,
            "hostPath": {"path": path, "type": "Directory"},
            "claimRef": claim,
        },
    }


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A new namespace at the restricted level, with the Secrets that the chart needs."""
    yield from _namespace("ryla-e2e")


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> str:
    """The version of the KubeRay operator; skips if the cluster has none."""
    found = run("kubectl", "get", "crd", "rayservices.ray.io", check=False)
    deployments = run(
        "kubectl", "get", "deployments", "-A", "-l", "app.kubernetes.io/name=kuberay-operator", "-o", "jsonpath={..image}"
    )
    if found.returncode or not deployments.stdout:
        pytest.skip("the cluster has no KubeRay operator; see tests/e2e/README.md")
    return deployments.stdout.rpartition(":")[2]
