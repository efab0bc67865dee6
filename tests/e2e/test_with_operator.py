"""A release that the KubeRay operator manages, from the install to the uninstall.

All tests use the same release, in the order of this file.
"""

import json
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from serve.http.examples import payload
from tests.e2e.cluster import CHART, Cluster, Json, run, wait_until
from tests.e2e.conftest import KEY, SHARED, figure, key_line

LOAD = (Path(__file__).parent / "load.py").read_text()
RATE = 4
FACE = {**payload("image-faceswap"), "restore_face": False}
WORKER = "ray.io/node-type=worker,ray.io/group="


@pytest.fixture(scope="module", autouse=True)
def release(cluster: Cluster, operator: str) -> str:
    """Install the chart. `helm install` returns when its hook has called all seven endpoints."""
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
    """Send ``RATE`` requests per second for ``seconds`` while the block runs.

    The dict that is yielded receives the outcome when the block ends.
    """
    cluster.python(name, LOAD, "http://ryla:8000/image-faceswap", str(RATE), str(seconds), json.dumps(FACE), key=KEY)
    wait_until(lambda: cluster.phase(name) == "Running", 60, "the load to start")
    time.sleep(10)
    outcome: Json = {}
    yield outcome
    outcome |= cluster.result(name, seconds + 600)


def _video(cluster: Cluster, name: str, **fields: Any) -> None:
    """Start a pod that sends one video request."""
    body = {"prompt": "a red circle moves to the right", **fields}
    cluster.python(name, LOAD, "http://ryla:8000/wan2.6", "1", "0.5", json.dumps(body), key=KEY)


def _call(cluster: Cluster, endpoint: str, timeout_s: float) -> float:
    """Call an endpoint once and return the seconds that it took."""
    cluster.python("one", LOAD, f"http://ryla:8000/{endpoint}", "1", "0.5", json.dumps(payload(endpoint)), key=KEY)
    outcome = cluster.result("one", timeout_s)
    assert outcome["failed"] == 0, outcome
    return float(outcome["slowest_s"])


def test_helm_test_calls_every_endpoint_through_the_service(cluster: Cluster) -> None:
    begin = time.monotonic()
    run("helm", "-n", cluster.namespace, "test", "ryla", "--timeout", "600s", timeout_s=620)
    figure("helm test", f"{time.monotonic() - begin:.0f} s")


def test_nothing_drifts(cluster: Cluster) -> None:
    """The operator keeps what the chart renders, and the same values change nothing."""
    manifest = run("helm", "-n", cluster.namespace, "get", "manifest", "ryla").stdout
    cluster.kubectl("diff", "-f", "-", text=manifest)  # fails and prints the difference if there is one
    cluster.kubectl("diff", "--server-side", "--force-conflicts", "-f", "-", text=manifest)
    before = _service(cluster)["metadata"]["generation"]
    _upgrade(cluster, {"rollout": {"smoke": False}})
    assert run("helm", "-n", cluster.namespace, "get", "manifest", "ryla").stdout == manifest
    assert _service(cluster)["metadata"]["generation"] == before


@pytest.mark.parametrize(("group", "endpoint"), [("a100-80g", "wan22-i2v"), ("l40s", "wan2.6")])
def test_a_group_scales_up_for_a_request_and_down_again(cluster: Cluster, group: str, endpoint: str) -> None:
    minimum = 1 if group == "l40s" else 0  # FaceSwapper keeps one
    wait_until(lambda: len(cluster.pods(WORKER + group)) == minimum, 240, f"{group} to be idle")
    seconds = _call(cluster, endpoint, 300)
    figure(f"{group}: one more pod for a call of /{endpoint}, answered after", f"{seconds:.0f} s")
    assert len(cluster.pods(WORKER + group)) == minimum + 1
    begin = time.monotonic()
    wait_until(lambda: len(cluster.pods(WORKER + group)) == minimum, 240, f"{group} to scale down")
    figure(f"{group}: scaled down after", f"{time.monotonic() - begin:.0f} s (scale to zero after 15 s, idle pod after 15 s)")


def test_losing_the_head_loses_no_request(cluster: Cluster) -> None:
    (head,) = cluster.pods("ray.io/node-type=head")
    with _under_load(cluster, "load-head", 120) as outcome:
        cluster.kubectl("delete", "pod", head["metadata"]["name"], "--grace-period=0", "--force")
        begin = time.monotonic()
        wait_until(
            lambda: [p for p in cluster.ready_pods("ray.io/node-type=head") if p["metadata"]["uid"] != head["metadata"]["uid"]],
            180,
            "a new head to be ready",
        )
        figure("a new head is ready after", f"{time.monotonic() - begin:.0f} s")
    figure(
        f"head force-deleted under {RATE} requests/s",
        f"{outcome['failed']} of {outcome['requests']} failed {outcome['examples']}",
    )
    assert outcome["failed"] == 0, outcome


@pytest.mark.parametrize("way", ["delete", "drain"])
def test_removing_a_gpu_pod_loses_no_video(cluster: Cluster, way: str) -> None:
    """It finishes within drainSeconds, or another pod generates it again with the same seed."""
    name = f"video-{way}"
    _video(cluster, name, width=256, height=256, num_frames=17, steps=20)
    workers = wait_until(lambda: _wan26_pods(cluster), 240, "the video to start")
    pod = workers[0]["metadata"]["name"]
    assert pod not in _endpoint_pods(cluster)
    begin = time.monotonic()
    if way == "delete":
        cluster.kubectl("delete", "pod", pod, "--wait=false")
    else:
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": cluster.namespace}}
        path = f"/api/v1/namespaces/{cluster.namespace}/pods/{pod}/eviction"
        run("kubectl", "create", "--raw", path, "-f", "-", text=json.dumps(eviction))
    outcome = cluster.result(name, 300)
    figure(
        f"GPU pod removed by {way} in mid-video",
        f"answered {time.monotonic() - begin:.0f} s later, attempts {outcome['attempts']}, {outcome['failed']} failed",
    )
    assert outcome["failed"] == 0, outcome


def test_deleted_cpu_pods_finish_their_requests(cluster: Cluster) -> None:
    """Every request passes through an ingress replica, so CPU pods must drain, too."""
    _video(cluster, "video-cpu", width=256, height=256, num_frames=17, steps=20)
    wait_until(lambda: _wan26_pods(cluster), 240, "the video to start")
    pods = {pod["metadata"]["name"] for pod in cluster.pods(WORKER + "cpu")}
    begin = time.monotonic()
    cluster.kubectl("delete", "pod", *pods, "--wait=false")
    outcome = cluster.result("video-cpu", 300)
    figure(
        "all CPU pods deleted in mid-video",
        f"answered {time.monotonic() - begin:.0f} s later, attempts {outcome['attempts']}, {outcome['failed']} failed",
    )
    assert outcome["failed"] == 0, outcome
    wait_until(
        lambda: len({p["metadata"]["name"] for p in cluster.ready_pods(WORKER + "cpu")} - pods) == 2,
        240,
        "new CPU pods to be ready",
    )


def _endpoint_pods(cluster: Cluster) -> set[str]:
    """Return the names of the pods that are endpoints of the Service."""
    slices = [s for s in cluster.get("endpointslices")["items"] if any(port["name"] == "serve" for port in s["ports"] or ())]
    names = {endpoint["targetRef"]["name"] for s in slices for endpoint in s["endpoints"] if endpoint["conditions"]["ready"]}
    assert names
    return names


def _wan26_pods(cluster: Cluster) -> list[Json]:
    """Return the pods that run a Wan26 replica."""
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
    _call(cluster, "wan2.6", 300)
    begin = time.monotonic()
    _video(cluster, "video-image", width=256, height=256, num_frames=17, steps=30)
    with _under_load(cluster, "load-image", 240) as outcome:
        _upgrade(cluster, {"image": {"repository": repository, "tag": f"{tag}-next"}, "rollout": {"smoke": False}})
        figure("helm upgrade, a new image: the new cluster serves after", f"{time.monotonic() - begin:.0f} s")
    assert _active(cluster) != before
    figure("helm upgrade, a new image", f"{outcome['failed']} of {outcome['requests']} failed {outcome['examples']}")
    video = cluster.result("video-image", 600)
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
        "helm upgrade, an image that does not exist",
        f"fails: {failed.stderr.strip()[-120:]}; {outcome['failed']} of {outcome['requests']} failed",
    )
    assert outcome["failed"] == 0, outcome
    run("helm", "-n", cluster.namespace, "rollback", "ryla", "--timeout", "600s", timeout_s=620)


def test_an_image_that_does_not_start_fails_the_upgrade_and_the_old_cluster_remains(cluster: Cluster) -> None:
    """The preflight job succeeds and the rollout job fails, so KubeRay keeps the old cluster.

    The job says why, instead of waiting until its time is up.
    """
    before = _active(cluster)
    with _under_load(cluster, "load-crash", 180) as outcome:
        begin = time.monotonic()
        broken = {"env": [{"name": "PYTHONPATH", "value": "/nowhere"}]}
        failed = _upgrade(cluster, broken, check=False)
        took = time.monotonic() - begin
    assert failed.returncode != 0
    assert "application ryla: DEPLOY_FAILED" in failed.stdout + failed.stderr, failed
    assert _active(cluster) == before
    figure(
        "helm upgrade, a version whose application does not start",
        f"fails after {took:.0f} s; {outcome['failed']} of {outcome['requests']} failed",
    )
    assert outcome["failed"] == 0, outcome
    begin = time.monotonic()
    run("helm", "-n", cluster.namespace, "rollback", "ryla", "--timeout", "900s", timeout_s=920)
    figure("helm rollback", f"{time.monotonic() - begin:.0f} s")


def test_api_keys_rotate_without_a_restart(cluster: Cluster) -> None:
    before = _active(cluster)
    new = secrets.token_urlsafe(24)
    cluster.secret("ryla-api-keys", keys=f"{key_line('smoke', KEY)}\n{key_line('new', new)}")
    begin = time.monotonic()
    wait_until(lambda: _status(cluster, new) == {"200"}, 180, "the new key to be accepted")
    figure("a new API key is accepted after", f"{time.monotonic() - begin:.0f} s")
    cluster.secret("ryla-api-keys", keys=key_line("new", new))
    begin = time.monotonic()
    wait_until(lambda: _status(cluster, KEY) == {"401"}, 180, "the old key to be refused")
    figure("an old API key is refused after", f"{time.monotonic() - begin:.0f} s")
    assert _active(cluster) == before
    cluster.secret("ryla-api-keys", keys=key_line("smoke", KEY))
    wait_until(lambda: _status(cluster, KEY) == {"200"}, 180, "the first key to be accepted again")


def _status(cluster: Cluster, key: str) -> set[str]:
    """Return the statuses of eight calls, which most likely reach every ingress replica."""
    cluster.python("status", LOAD, "http://ryla:8000/image-faceswap", "8", "1", json.dumps(FACE), key=key)
    return set(cluster.result("status", 120)["outcomes"])


def test_rays_token_rotates_with_a_new_secret(cluster: Cluster) -> None:
    before = _active(cluster)
    cluster.secret("ryla-ray-token-2", auth_token=secrets.token_hex(32))
    rotated = {"auth": {"rayTokenSecret": "ryla-ray-token-2"}, "rollout": {"smoke": False}}
    begin = time.monotonic()
    _upgrade(cluster, rotated)
    figure("Ray's token rotated, with a new cluster", f"{time.monotonic() - begin:.0f} s")
    assert _active(cluster) != before
    # The operator can still reach the dashboard, as a changed setting shows.
    _upgrade(cluster, {**rotated, "deployments": {"Wan26": {"autoscaling_config": {"downscale_delay_s": 18}}}})
    applied = _service(cluster)["status"]["activeServiceStatus"]["applicationStatuses"]["ryla"]["status"]
    assert applied == "RUNNING"


def test_uninstall_leaves_nothing(cluster: Cluster) -> None:
    begin = time.monotonic()
    run("helm", "-n", cluster.namespace, "uninstall", "ryla", "--timeout", "300s", timeout_s=320)
    cluster.kubectl("delete", "pod", "-l", "app=caller", "--wait=false")
    kinds = "pods,services,jobs,statefulsets,rayservices,rayclusters,networkpolicies,poddisruptionbudgets"
    kinds += ",persistentvolumeclaims,roles"
    wait_until(
        lambda: [item["metadata"]["name"] for item in cluster.get(kinds)["items"]] == [SHARED], 300, "every object to be gone"
    )
    figure("helm uninstall: every object gone after", f"{time.monotonic() - begin:.0f} s")
