"""Tests that need no operator: the API server accepts every object, and `mode: pod` serves."""

import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from helm.generator.paths import MANIFESTS
from serve.http.examples import payload
from serve.models import INGRESS, MODELS, RUNNER, WAN22_GGUF, WAN26
from tests.chart.rendering import CRDS, VALUES, pod_templates, render
from tests.e2e.cluster import CHART, Cluster, Json, run, wait_until
from tests.e2e.conftest import KEY, figure, key_line, missing_apis

LOAD = (Path(__file__).parent / "load.py").read_text()
FACE = payload("image-faceswap")
POD: Json = {
    "mode": "pod",
    "auth": {"rayTokenSecret": ""},
    "faultTolerance": {"redis": "none"},
    "jobs": {"store": "embedded", "files": ""},
    "config": {"ingress": {"num_cpus": 0.2, "resources": {}}, "runner": {"num_cpus": 0.2, "resources": {}}},
    "pod": {"resources": {"requests": {"cpu": "50m", "memory": "1Gi"}}},
    "rollout": {"timeoutSeconds": 600},
}
"""Values for the demo in one pod, with its models on the CPU; merged over values.yaml."""
for model in MODELS:
    POD["config"][model.setting] = {"hardware": {"num_cpus": 0.2, "num_gpus": 0, "accelerator_type": None}}
POD["models"] = {"volume": {"emptyDir": {}}}
POD["deployments"] = {
    name: {"autoscaling_config": {"min_replicas": 1, "max_replicas": 1}}
    for name in (WAN26.deployment, WAN22_GGUF.deployment, INGRESS, RUNNER)
}


@pytest.fixture(scope="module")
def definitions(cluster: Cluster) -> None:
    """Install KubeRay's CRDs unless the cluster has them."""
    if run("kubectl", "get", "crd", "rayservices.ray.io", check=False).returncode:
        if CRDS is None:
            pytest.skip("the cluster has no KubeRay CRDs and KUBERAY_CRDS is not set; see tests/e2e/README.md")
        run("kubectl", "apply", "--server-side", "-f", str(CRDS))
        established = ("kubectl", "wait", "--for=condition=Established", "crd/rayservices.ray.io", "--timeout=10s")
        wait_until(lambda: run(*established, check=False).returncode == 0, 60, "the CRDs to be established")


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_the_api_server_accepts_every_object(cluster: Cluster, definitions: None, file: Path) -> None:
    objects = [o for o in render(None, file) if o["apiVersion"] not in missing_apis()]
    for o in objects:
        o["metadata"] |= {"namespace": cluster.namespace}
        for subject in o.get("subjects", []):
            subject["namespace"] = cluster.namespace
    text = yaml.safe_dump_all(objects)
    out = cluster.kubectl("apply", "--server-side", "--dry-run=server", "--validate=strict", "-f", "-", text=text)
    assert len(out.splitlines()) == len(objects)


@pytest.mark.parametrize("file", VALUES, ids=lambda path: path.stem)
def test_every_pod_is_admitted_at_the_restricted_level(cluster: Cluster, file: Path) -> None:
    pods = []
    for number, (_, template) in enumerate(pod_templates(render(None, file))):
        metadata = {"name": f"pod-{number}", "labels": template["metadata"].get("labels", {})}
        spec = json.loads(json.dumps(template["spec"]))
        spec.pop("serviceAccountName", None)
        spec.pop("priorityClassName", None)
        if "volumeClaimTemplates" not in spec:
            known = {volume["name"] for volume in spec.get("volumes", [])}
            mounts = {m["name"] for c in spec["containers"] for m in c.get("volumeMounts", [])}
            spec["volumes"] = [*spec.get("volumes", []), *({"name": name, "emptyDir": {}} for name in mounts - known)]
        pods.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    out = cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-f", "-", text=yaml.safe_dump_all(pods))
    assert len(out.splitlines()) == len(pods) >= 3


def test_a_pod_that_breaks_the_rules_is_refused(cluster: Cluster) -> None:
    """Admission is enabled, so the test above can fail."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bad"},
        "spec": {"containers": [{"name": "a", "image": "a"}]},
    }
    done = run("kubectl", "-n", cluster.namespace, "create", "--dry-run=server", "-f", "-", text=json.dumps(pod), check=False)
    assert "violates PodSecurity" in done.stderr


@pytest.mark.parametrize("name", ["production", "demo"])
def test_the_plain_manifests_apply(cluster: Cluster, definitions: None, name: str) -> None:
    run("kubectl", "create", "namespace", "ryla", check=False)
    try:
        run("kubectl", "apply", "-k", str(MANIFESTS / name), "--dry-run=server", "--validate=strict")
    finally:
        run("kubectl", "delete", "namespace", "ryla", timeout_s=120)


def test_missing_model_files_fail_the_install_before_anything_is_created(cluster: Cluster) -> None:
    # A ConfigMap that every namespace has: an emptyDir is not shared, and is refused before.
    volume = {"configMap": {"name": "kube-root-ca.crt"}}
    broken = POD | {"models": {"volume": volume, "sha256": {"a/b.bin": "0" * 64}}}
    failed = cluster.helm("install", "ryla", str(CHART), values=broken, check=False, timeout_s=240)
    try:
        assert failed.returncode != 0
        assert "pre-install" in failed.stderr
        # Helm prints the log of the job, which it deletes afterwards.
        assert "a/b.bin: FAILED" in failed.stdout + failed.stderr
        assert not cluster.get("deployments,services,networkpolicies")["items"]
    finally:
        run("helm", "-n", cluster.namespace, "uninstall", "ryla")
        cluster.kubectl("delete", "job,configmap", "ryla-preflight", "--ignore-not-found")


@pytest.fixture(scope="module")
def release(cluster: Cluster) -> Iterator[None]:
    """Install the chart with `mode: pod`; ready when its hook has called all seven endpoints."""
    begin = time.monotonic()
    cluster.helm("install", "ryla", str(CHART), values=POD)
    figure("mode: pod, until all seven endpoints have answered", f"{time.monotonic() - begin:.0f} s")
    yield
    cluster.kubectl("delete", "pod", "-l", "app=caller", "--wait=false")
    begin = time.monotonic()
    run("helm", "-n", cluster.namespace, "uninstall", "ryla")
    wait_until(
        lambda: not cluster.get("pods,services,jobs,deployments,networkpolicies")["items"], 180, "every object to be gone"
    )
    figure("mode: pod, helm uninstall: every object gone after", f"{time.monotonic() - begin:.0f} s")


def _statuses(cluster: Cluster, key: str | None) -> dict[str, int]:
    cluster.python("caller", LOAD, "http://ryla:8000/image-faceswap", "2", "1", json.dumps(FACE), key=key)
    outcomes: dict[str, int] = cluster.result("caller", 300)["outcomes"]
    return outcomes


def test_the_service_requires_a_key_and_keys_rotate(cluster: Cluster, release: None) -> None:
    assert set(_statuses(cluster, KEY)) == {"200"}
    assert set(_statuses(cluster, None)) == {"401"}
    (pod,) = cluster.pods("app.kubernetes.io/component=pod")
    new = secrets.token_urlsafe(24)
    cluster.secret("ryla-api-keys", keys=key_line("new", new))
    begin = time.monotonic()
    wait_until(lambda: set(_statuses(cluster, new)) == {"200"}, 300, "the new key to be accepted")
    assert set(_statuses(cluster, KEY)) == {"401"}
    figure("API keys rotated without a restart, after", f"{time.monotonic() - begin:.0f} s")
    (same,) = cluster.pods("app.kubernetes.io/component=pod")
    assert same["metadata"]["uid"] == pod["metadata"]["uid"]
    assert sum(c["restartCount"] for c in same["status"]["containerStatuses"]) == 0
    cluster.secret("ryla-api-keys", keys=key_line("smoke", KEY))
