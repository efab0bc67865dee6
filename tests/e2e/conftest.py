"""`make e2e`: against a real API server and kubelet, whichever KUBECONFIG names. What did not run, and why, is printed at the end."""

import hashlib
import os
import secrets
import shutil
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.e2e.cluster import ROOT, Cluster, run
from tests.k8s.chart import APIS

FIGURES: list[tuple[str, str]] = []
KEY = secrets.token_urlsafe(24)
CRDS = Path(os.environ.get("KUBERAY_CRDS", ROOT.parent / "shared" / "kuberay-crds"))


def figure(what: str, value: str) -> None:
    """A line of the report."""
    FIGURES.append((what, value))


def line_of(name: str, key: str) -> str:
    """A key's line in the Secret of the keys."""
    return f"{name} {hashlib.sha256(key.encode()).hexdigest()}"


@cache
def absent_apis() -> tuple[str, ...]:
    """Those of the chart's APIs that are neither Kubernetes' nor KubeRay's, and that the cluster has not."""
    served = run("kubectl", "api-versions", check=False).stdout.split()
    return tuple(api for api in APIS if api not in served)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("report")
    for what, value in FIGURES:
        terminalreporter.write_line(f"{what}: {value}")
    terminalreporter.write_line(
        "did not run: NetworkPolicies in action (the node may not enforce them; tests/k8s evaluates them)"
    )
    if os.environ.get("KUBECONFIG") and absent_apis():
        terminalreporter.write_line(f"did not run: objects of {', '.join(absent_apis())} (their definitions are not here)")
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
        pytest.skip("KUBECONFIG names no cluster")
    cluster = Cluster(name, os.environ.get("RYLA_E2E_IMAGE", "localhost/ryla-serve:cpu"))
    run("kubectl", "delete", "namespace", name, "--ignore-not-found", "--timeout=300s", timeout_s=320)
    run("kubectl", "create", "namespace", name)
    run("kubectl", "label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    cluster.secret("ryla-api-keys", keys=line_of("smoke", KEY))
    cluster.secret("ryla-smoke-key", key=KEY)
    cluster.secret("ryla-redis", password=secrets.token_hex(16))
    cluster.secret("ryla-ray-token", auth_token=secrets.token_hex(32))
    yield cluster
    run("kubectl", "delete", "namespace", name, "--timeout=300s", timeout_s=320)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A fresh namespace at the restricted level, with the Secrets that the chart wants."""
    yield from _namespace("ryla-e2e")


@pytest.fixture(scope="module")
def operator(cluster: Cluster) -> str:
    """The version of KubeRay's operator; skips where there is none."""
    found = run("kubectl", "get", "crd", "rayservices.ray.io", check=False)
    deployments = run(
        "kubectl", "get", "deployments", "-A", "-l", "app.kubernetes.io/name=kuberay-operator", "-o", "jsonpath={..image}"
    )
    if found.returncode or not deployments.stdout:
        pytest.skip("no KubeRay operator in this cluster")
    return deployments.stdout.rpartition(":")[2]
