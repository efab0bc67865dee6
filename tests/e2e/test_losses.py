"""Each pod of a release is lost in each way, during a video, a job and two face swaps a second.

The operator manages the release. RYLA_E2E_ROUNDS says how often each loss is repeated (by default
once, which takes about 25 minutes on two cores). Every answer that arrives must have the pixels of
the undisturbed answer, no job may be lost, and no request may fail but those of a pod that held
their connection and was lost at once.
"""

import json
import os
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from serve.http.examples import payload
from tests.e2e.calls import JOB, Calls
from tests.e2e.cluster import CHART, Cluster, Json, run, wait_until
from tests.e2e.conftest import KEY, SHARED, figure, node_volume

CALLERS = (Path(__file__).parent / "callers.py").read_text()
ROUNDS = int(os.environ.get("RYLA_E2E_ROUNDS", "1"))
SWAPS_PER_S = 2.0
SECONDS = 5400
"""The longest time that the callers run; the tests end them before."""
HEAD_S = 30
"""Within this time a new head must be ready."""
GAP_S = 20
"""The longest time without an answer to a face swap after a raylet or the GCS was killed."""
RESTORED_S = 240
WAYS = ("delete", "force", "evict")
SIZE = {"width": 128, "height": 128, "num_frames": 9, "steps": 6}
WAN26, WAN22 = "/wan2.6-i2v-faceswap", "/wan22-i2v-faceswap"
REDIS_FOLDER = """
import json, pathlib, shutil
folder = pathlib.Path("/shared/ryla-e2e-redis")
shutil.rmtree(folder, ignore_errors=True)
folder.mkdir()
print(json.dumps(folder.name))
"""
"""Makes an empty folder that belongs to the user of the pods, whom Redis runs as."""
VALUES: Json = {
    # A head that starts among busy pods gets the share of the node that it requests.
    "head": {"resources": {"requests": {"cpu": "400m"}}},
    # As in production, what Redis knows outlives its pod, and so do the jobs.
    "faultTolerance": {"own": {"storage": "1Gi", "storageClassName": "ryla-e2e"}},
    # Each model is up, so that what is measured is the loss and not a start from zero.
    "deployments": {name: {"autoscaling_config": {"min_replicas": 1}} for name in ("Wan26", "Wan22GGUF")},
    "gateway": {"replicas": 2},
}
HEAD = "ray.io/node-type=head"
WORKER = "ray.io/node-type=worker,ray.io/group="
PODS = {
    "head": (HEAD, ""),
    "cpu": (f"{WORKER}cpu", ""),
    "l40s of FaceSwapper": (f"{WORKER}l40s", "FaceSwapper"),
    "l40s of Wan26": (f"{WORKER}l40s", "Wan26"),
    "a100-80g": (f"{WORKER}a100-80g", ""),
    "gateway": ("app.kubernetes.io/component=gateway", ""),
    "redis": ("app.kubernetes.io/component=redis", ""),
}
"""What is lost: the selector of its pods, and a deployment whose replica is in the pod."""
ENDS_REQUESTS = frozenset(
    {("cpu", "force"), ("gateway", "force"), *((what, way) for what in ("head", "redis") for way in WAYS)}
)
"""These losses end requests, as docs/operations.md says.

They are the requests whose connections pass the pod. The head ends with Redis, without which no
request is accepted.
"""
KILL = """
import psutil
for process in psutil.process_iter():
    if process.name() == %r:
        process.kill()
"""


@pytest.fixture(scope="module")
def redis_volume(cluster: Cluster) -> Iterator[None]:
    """An empty folder of the node as the volume for the claim of the chart's Redis."""
    cluster.python("redis-folder", REDIS_FOLDER, claim=SHARED)
    path = f"/tmp/{cluster.result('redis-folder', 120)}"
    name, claim = f"{cluster.namespace}-redis", {"namespace": cluster.namespace, "name": "data-ryla-redis-0"}
    volume = node_volume(name, path, storage_class="ryla-e2e", claim=claim)
    run("kubectl", "delete", "persistentvolume", name, "--ignore-not-found", "--timeout=60s")
    run("kubectl", "apply", "-f", "-", text=json.dumps(volume))
    yield
    run("kubectl", "delete", "persistentvolume", name, "--wait=false")


@pytest.fixture(scope="module")
def release(cluster: Cluster, operator: str, redis_volume: None) -> None:
    """Install the chart and wait until every model is up."""
    cluster.helm("install", "ryla", str(CHART), values=VALUES)


@pytest.fixture(scope="module")
def calls(cluster: Cluster, release: None) -> Iterator[Calls]:
    """The calls that go on during all tests, after an undisturbed pair of videos."""
    videos = [[path, {**payload(path[1:]), **SIZE}] for path in (WAN26, WAN22)]
    swap = json.dumps(payload("image-faceswap"))
    cluster.python("callers", CALLERS, "http://ryla:8000", str(SECONDS), str(SWAPS_PER_S), swap, json.dumps(videos), key=KEY)
    wait_until(lambda: cluster.phase("callers") == "Running", 60, "the callers to start")
    found = Calls(cluster, "callers")
    each = {"/image-faceswap", *(f"{kind}{path}" for kind in ("", JOB) for path in (WAN26, WAN22))}
    wait_until(lambda: {call["path"] for call in found.ended()} >= each, 600, "one of each call")
    found.remember()
    yield found
    cluster.kubectl("delete", "pod", "callers", "--wait=false")


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize(("process", "what"), [("raylet", "cpu"), ("raylet", "l40s of Wan26"), ("gcs_server", "head")])
def test_a_killed_process_makes_no_long_gap(cluster: Cluster, calls: Calls, process: str, what: str, round_: int) -> None:
    selector, deployment = PODS[what]
    before = {pod["metadata"]["uid"] for pod in cluster.ready_pods(selector)}
    pod = _pod_of(cluster, selector, deployment)
    name, container = pod["metadata"]["name"], pod["spec"]["containers"][0]["name"]
    calls.await_video(WAN26)
    begun = time.time()
    # The command may end with its container. The operator replaces a pod whose Ray has ended.
    cluster.kubectl("exec", name, "-c", container, "--", "python3", "-c", KILL % process, check=False)
    restored = _await_new_pod(cluster, selector, before, pod["metadata"]["uid"])
    outcome = calls.outcome(since=begun)
    figure(f"{process} of {what} killed, round {round_ + 1}", f"a new pod ready after {restored:.0f} s; {outcome}")
    assert not outcome.wrong, outcome
    assert not outcome.lost_jobs, outcome
    assert outcome.gap_s <= GAP_S, outcome


@pytest.mark.parametrize("round_", range(ROUNDS))
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("what", PODS)
def test_losing_a_pod_loses_no_request(cluster: Cluster, calls: Calls, what: str, way: str, round_: int) -> None:
    selector, deployment = PODS[what]
    before = {pod["metadata"]["uid"] for pod in cluster.ready_pods(selector)}
    lost = _pod_of(cluster, selector, deployment)
    calls.await_video(WAN22 if what == "a100-80g" else WAN26)
    begun = time.time()
    _lose(cluster, lost["metadata"]["name"], way)
    restored = _await_new_pod(cluster, selector, before, lost["metadata"]["uid"])
    outcome = calls.outcome(since=begun)
    figure(f"{what}, {way}, round {round_ + 1}", f"a new pod ready after {restored:.0f} s; {outcome}")
    assert not outcome.wrong, outcome
    assert not outcome.lost_jobs, outcome
    if (what, way) not in ENDS_REQUESTS:
        assert not outcome.failed, outcome
    if what == "head":
        assert restored <= HEAD_S


def _pod_of(cluster: Cluster, selector: str, deployment: str) -> Json:
    """Return a ready pod, one with a replica of ``deployment`` if that is given."""

    def find() -> Json | None:
        pods = cluster.ready_pods(selector)
        return next((pod for pod in pods if not deployment or _has_replica(cluster, pod, deployment)), None)

    found: Json = wait_until(find, RESTORED_S, f"a pod {selector} {deployment}")
    return found


def _has_replica(cluster: Cluster, pod: Json, deployment: str) -> bool:
    # The script's own command line has the name, too, but does not begin with it.
    starts = "' '.join(p.cmdline()).startswith(sys.argv[1])"
    script = f"import psutil, sys; sys.exit(not any({starts} for p in psutil.process_iter()))"
    name = pod["metadata"]["name"]
    command = ("kubectl", "-n", cluster.namespace, "exec", name, "-c", "ray-worker", "--", "python3", "-c", script)
    return run(*command, f"ray::ServeReplica:ryla:{deployment}", check=False).returncode == 0


def _lose(cluster: Cluster, name: str, way: str) -> None:
    if way == "evict":
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": cluster.namespace}}
        path = f"/api/v1/namespaces/{cluster.namespace}/pods/{name}/eviction"
        run("kubectl", "create", "--raw", path, "-f", "-", text=json.dumps(eviction))
    else:
        options = ("--grace-period=0", "--force") if way == "force" else ()
        cluster.kubectl("delete", "pod", name, "--wait=false", *options)


def _await_new_pod(cluster: Cluster, selector: str, before: set[str], lost: str) -> float:
    """Wait until as many pods as before are ready and the lost one is gone; return the seconds.

    The seconds are those until the first new pod was ready, by the word of its kubelet: on a busy
    machine this process may look much later. The old pod may take its grace period to end.
    """
    begun = time.time()

    def back() -> list[Json]:
        pods = cluster.get("pods", "-l", selector)["items"]
        ready = cluster.ready_pods(selector)
        gone = lost not in {pod["metadata"]["uid"] for pod in pods}
        return [pod for pod in ready if pod["metadata"]["uid"] not in before] if gone and len(ready) >= len(before) else []

    new: list[Json] = wait_until(back, RESTORED_S, f"pods {selector} to be back")
    return min(_ready_since(pod) for pod in new) - begun


def _ready_since(pod: Json) -> float:
    """Return when a pod became ready, in seconds since 1970."""
    (ready,) = (c for c in pod["status"]["conditions"] if c["type"] == "Ready")
    return datetime.fromisoformat(ready["lastTransitionTime"]).timestamp()
