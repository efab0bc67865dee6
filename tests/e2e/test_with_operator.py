"""A release by KubeRay's operator: scaled, lost, upgraded, broken, uninstalled. One release, in the order of this file."""

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serve.samples import payload
from tests.e2e.cluster import CHART, Cluster, Json, run, wait_until
from tests.e2e.conftest import KEY, figure, line_of

LOAD = (Path(__file__).parent / "load.py").read_text()
RATE = 4
FACE = {**payload("image-faceswap"), "restore_face": False}
WORKER = "ray.io/node-type=worker,ray.io/group="


@pytest.fixture(scope="module", autouse=True)
def release(cluster: Cluster, operator: str) -> str:
    """`helm install`: done when its hook has called all seven endpoints."""
    begin = time.monotonic()
    cluster.helm("install", "ryla", str(CHART))
    figure(f"helm install, KubeRay {operator}, until all seven endpoints have answered", f"{time.monotonic() - begin:.0f} s")
    return "ryla"


def _service(cluster: Cluster) -> Json:
    found: Json = cluster.get("rayservice", "ryla")
    return found


def _active(cluster: Cluster) -> str:
    return str(_service(cluster)["status"]["activeServiceStatus"]["rayClusterName"])


def _upgrade(
    cluster: Cluster, values: Json | None = None, *, check: bool = True, timeout_s: float = 900
) -> subprocess.CompletedProcess[str]:
    return cluster.helm("upgrade", "ryla", str(CHART), values=values, check=check, timeout_s=timeout_s)


@contextmanager
def _under_load(cluster: Cluster, name: str, seconds: float) -> Iterator[Json]:
    """Four requests a second for ``seconds`` at least while the block runs; the dict has the outcome afterwards."""
    cluster.python(name, LOAD, "http://ryla:8000/image-faceswap", str(RATE), str(seconds), json.dumps(FACE), key=KEY)
    wait_until(lambda: cluster.phase(name) == "Running", 60, "the load")
    time.sleep(10)
    outcome: Json = {}
    yield outcome
    outcome |= cluster.result_of(name, seconds + 600)


def _video(cluster: Cluster, name: str, **fields: Any) -> None:
    """One video request, in a pod."""
    body = {"prompt": "a red circle moves to the right", **fields}
    cluster.python(name, LOAD, "http://ryla:8000/wan2.6", "1", "0.5", json.dumps(body), key=KEY)


def _one(cluster: Cluster, endpoint: str, timeout_s: float) -> float:
    """Seconds of one call of an endpoint."""
    cluster.python("one", LOAD, f"http://ryla:8000/{endpoint}", "1", "0.5", json.dumps(payload(endpoint)), key=KEY)
    outcome = cluster.result_of("one", timeout_s)
    assert outcome["failed"] == 0, outcome
    return float(outcome["slowest_s"])


def test_helm_test_calls_every_endpoint_through_the_service(cluster: Cluster) -> None:
    begin = time.monotonic()
    run("helm", "-n", cluster.namespace, "test", "ryla", "--timeout", "600s", timeout_s=620)
    figure("helm test", f"{time.monotonic() - begin:.0f} s")


@pytest.mark.parametrize(("group", "endpoint"), [("a100-80g", "wan22-i2v"), ("l40s", "wan2.6")])
def test_a_group_comes_from_zero_for_a_request_and_goes_again(cluster: Cluster, group: str, endpoint: str) -> None:
    least = 1 if group == "l40s" else 0  # FaceSwapper's stays
    wait_until(lambda: len(cluster.pods(WORKER + group)) == least, 240, f"{group} idle")
    seconds = _one(cluster, endpoint, 300)
    figure(f"{group}: one more pod for a call of /{endpoint}, answered after", f"{seconds:.0f} s")
    assert len(cluster.pods(WORKER + group)) == least + 1
    begin = time.monotonic()
    wait_until(lambda: len(cluster.pods(WORKER + group)) == least, 240, f"{group} given back")
    figure(f"{group}: given back after", f"{time.monotonic() - begin:.0f} s (scale to zero after 15 s, idle pod after 15 s)")


def test_a_lost_head_loses_no_request(cluster: Cluster) -> None:
    (head,) = cluster.pods("ray.io/node-type=head")
    with _under_load(cluster, "load-head", 120) as outcome:
        cluster.kubectl("delete", "pod", head["metadata"]["name"], "--grace-period=0", "--force")
        begin = time.monotonic()
        wait_until(
            lambda: [p for p in cluster.ready_pods("ray.io/node-type=head") if p["metadata"]["uid"] != head["metadata"]["uid"]],
            180,
            "a new head",
        )
        figure("a new head is ready after", f"{time.monotonic() - begin:.0f} s")
    figure(
        f"head force-deleted under {RATE} requests/s",
        f"{outcome['failed']} of {outcome['requests']} failed {outcome['examples']}",
    )
    assert outcome["failed"] == 0, outcome


@pytest.mark.parametrize("way", ["delete", "drain"])
def test_a_gpu_pod_that_goes_loses_no_video(cluster: Cluster, way: str) -> None:
    """It ends within the group's drainSeconds (1 attempt), or is made again elsewhere with the same seed (2)."""
    name = f"video-{way}"
    _video(cluster, name, width=192, height=192, num_frames=33, steps=20)
    workers = wait_until(lambda: _busy(cluster), 240, "the video under way")
    pod = workers[0]["metadata"]["name"]
    assert pod not in _called_pods(cluster)
    begin = time.monotonic()
    if way == "delete":
        cluster.kubectl("delete", "pod", pod, "--wait=false")
    else:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": cluster.namespace}}
        path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction"
        run("kubectl", "create", "--raw", path, "-f", "-", text=json.dumps(eviction))
    outcome = cluster.result_of(name, 300)
    figure(
        f"GPU pod gone by {way} in mid-video",
        f"answered {time.monotonic() - begin:.0f} s later, attempts {outcome['attempts']}, {outcome['failed']} failed",
    )
    assert outcome["failed"] == 0, outcome


def test_cpu_pods_that_go_carry_their_requests_to_the_end(cluster: Cluster) -> None:
    """Every request goes through an ingress replica: the pod of a GPU is not the only one that must drain."""
    _video(cluster, "video-cpu", width=192, height=192, num_frames=33, steps=20)
    wait_until(lambda: _busy(cluster), 240, "the video under way")
    pods = {pod["metadata"]["name"] for pod in cluster.pods(WORKER + "cpu")}
    begin = time.monotonic()
    cluster.kubectl("delete", "pod", *pods, "--wait=false")
    outcome = cluster.result_of("video-cpu", 300)
    figure(
        "all CPU pods deleted in mid-video",
        f"answered {time.monotonic() - begin:.0f} s later, attempts {outcome['attempts']}, {outcome['failed']} failed",
    )
    assert outcome["failed"] == 0, outcome
    wait_until(
        lambda: len({p["metadata"]["name"] for p in cluster.ready_pods(WORKER + "cpu")} - pods) == 2, 240, "new CPU pods"
    )


def _called_pods(cluster: Cluster) -> set[str]:
    """Those that requests go to."""
    slices = [s for s in cluster.get("endpointslices")["items"] if any(port["name"] == "serve" for port in s["ports"] or ())]
    names = {endpoint["targetRef"]["name"] for s in slices for endpoint in s["endpoints"] if endpoint["conditions"]["ready"]}
    assert names
    return names


def _busy(cluster: Cluster) -> list[Json]:
    """The pod of the Wan26 replica, once its denoising has begun."""
    found = []
    for pod in cluster.ready_pods(WORKER + "l40s"):
        name = pod["metadata"]["name"]
        logs = cluster.kubectl(
            "exec", name, "-c", "ray-worker", "--", "sh", "-c", "ls /tmp/ray/session_latest/logs/serve", check=False
        )
        if "Wan26" in logs:
            found.append(pod)
    return found


def test_a_serve_setting_changes_in_place_and_loses_nothing(cluster: Cluster) -> None:
    before = _active(cluster)
    with _under_load(cluster, "load-setting", 60) as outcome:
        _upgrade(
            cluster, {"deployments": {"Wan26": {"autoscaling_config": {"downscale_delay_s": 17}}}, "rollout": {"smoke": False}}
        )
    assert _active(cluster) == before
    figure(
        "helm upgrade, a Serve setting", f"in place, {outcome['failed']} of {outcome['requests']} failed {outcome['examples']}"
    )
    assert outcome["failed"] == 0, outcome


def test_a_new_image_loses_nothing(cluster: Cluster) -> None:
    before = _active(cluster)
    repository, _, tag = cluster.image.rpartition(":")
    _one(cluster, "wan2.6", 300)
    begin = time.monotonic()
    _video(cluster, "video-image", width=256, height=256, num_frames=33, steps=30)
    with _under_load(cluster, "load-image", 240) as outcome:
        _upgrade(cluster, {"image": {"repository": repository, "tag": f"{tag}-next"}, "rollout": {"smoke": False}})
        figure("helm upgrade, a new image: the new cluster serves after", f"{time.monotonic() - begin:.0f} s")
    assert _active(cluster) != before
    figure("helm upgrade, a new image", f"{outcome['failed']} of {outcome['requests']} failed {outcome['examples']}")
    video = cluster.result_of("video-image", 600)
    figure(
        "a video begun before that upgrade", f"{video['failed']} failed, {video['slowest_s']} s, attempts {video['attempts']}"
    )
    assert (outcome["failed"], video["failed"]) == (0, 0), (outcome, video)


def test_a_broken_image_fails_the_upgrade_and_changes_nothing(cluster: Cluster) -> None:
    before = _active(cluster)
    with _under_load(cluster, "load-broken", 60) as outcome:
        values = {"image": {"repository": "localhost/ryla-serve", "tag": "no-such-tag"}, "preflight": {"timeoutSeconds": 30}}
        failed = _upgrade(cluster, values, check=False, timeout_s=120)
    assert failed.returncode != 0
    assert _active(cluster) == before
    figure(
        "helm upgrade, an image that is not there",
        f"fails: {failed.stderr.strip()[-120:]}; {outcome['failed']} of {outcome['requests']} failed",
    )
    assert outcome["failed"] == 0, outcome
    run("helm", "-n", cluster.namespace, "rollback", "ryla", "--timeout", "600s", timeout_s=620)


def test_an_image_that_cannot_serve_fails_the_upgrade_and_the_old_cluster_serves_on(cluster: Cluster) -> None:
    """Its check passes and its application cannot start: found by the rollout job, as KubeRay keeps the old cluster."""
    before = _active(cluster)
    with _under_load(cluster, "load-crash", 90) as outcome:
        broken = {"env": [{"name": "PYTHONPATH", "value": "/nowhere"}], "rollout": {"timeoutSeconds": 120}}
        failed = _upgrade(cluster, broken, check=False, timeout_s=300)
    assert failed.returncode != 0
    assert _active(cluster) == before
    figure(
        "helm upgrade, a version whose application does not start",
        f"fails; {outcome['failed']} of {outcome['requests']} failed",
    )
    assert outcome["failed"] == 0, outcome
    begin = time.monotonic()
    run("helm", "-n", cluster.namespace, "rollback", "ryla", "--timeout", "900s", timeout_s=920)
    figure("helm rollback", f"{time.monotonic() - begin:.0f} s")


def test_api_keys_rotate_without_a_restart(cluster: Cluster) -> None:
    before = _active(cluster)
    new = secrets.token_urlsafe(24)
    cluster.secret("ryla-api-keys", keys=f"{line_of('smoke', KEY)}\n{line_of('new', new)}")
    begin = time.monotonic()
    wait_until(lambda: _status(cluster, new) == {"200"}, 180, "the new key is taken")
    figure("a new API key is taken after", f"{time.monotonic() - begin:.0f} s")
    cluster.secret("ryla-api-keys", keys=line_of("new", new))
    begin = time.monotonic()
    wait_until(lambda: _status(cluster, KEY) == {"401"}, 180, "the old key is refused")
    figure("an old API key is refused after", f"{time.monotonic() - begin:.0f} s")
    assert _active(cluster) == before
    cluster.secret("ryla-api-keys", keys=line_of("smoke", KEY))
    wait_until(lambda: _status(cluster, KEY) == {"200"}, 180, "the first key is taken again")


def _status(cluster: Cluster, key: str) -> set[str]:
    """Status of eight calls: of every ingress replica, most likely."""
    cluster.python("status", LOAD, "http://ryla:8000/image-faceswap", "8", "1", json.dumps(FACE), key=key)
    return set(cluster.result_of("status", 120)["outcomes"])


def test_rays_token_rotates_by_a_new_secret_and_the_operator_goes_on(cluster: Cluster) -> None:
    before = _active(cluster)
    cluster.secret("ryla-ray-token-2", auth_token=secrets.token_hex(32))
    rotated = {"auth": {"rayTokenSecret": "ryla-ray-token-2"}, "rollout": {"smoke": False}}
    begin = time.monotonic()
    _upgrade(cluster, rotated)
    figure("Ray's token rotated, by a new cluster", f"{time.monotonic() - begin:.0f} s")
    assert _active(cluster) != before
    # The operator still reaches the dashboard: a change of a setting arrives there.
    _upgrade(cluster, {**rotated, "deployments": {"Wan26": {"autoscaling_config": {"downscale_delay_s": 18}}}})
    applied = _service(cluster)["status"]["activeServiceStatus"]["applicationStatuses"]["ryla"]["status"]
    assert applied == "RUNNING"


def test_uninstall_leaves_nothing(cluster: Cluster) -> None:
    begin = time.monotonic()
    run("helm", "-n", cluster.namespace, "uninstall", "ryla", "--timeout", "300s", timeout_s=320)
    cluster.kubectl("delete", "pod", "-l", "app=caller", "--wait=false")
    kinds = "pods,services,jobs,statefulsets,rayservices,rayclusters,networkpolicies,poddisruptionbudgets,persistentvolumeclaims,roles"
    wait_until(lambda: not cluster.get(kinds)["items"], 300, "everything is gone")
    figure("helm uninstall: everything gone after", f"{time.monotonic() - begin:.0f} s")
