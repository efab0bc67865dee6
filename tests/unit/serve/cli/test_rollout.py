"""`ryla rollout` waits until KubeRay has rolled out a version, or says why it cannot."""

from collections.abc import Sequence
from pathlib import Path

import certifi
import httpx
import pytest

from serve.cli import rollout
from serve.cli.rollout import RolloutFailed, await_rollout
from tests.unit.serve.cli.cluster_objects import Json, pod, service

PATH = "/apis/ray.io/v1/namespaces/video/rayservices/ryla"


def api(services: list[Json | int], pods: Sequence[Json] = (), events: Sequence[Json] = ()) -> httpx.Client:
    """Return an API server that answers with each of ``services``, and then repeats the last one.

    A number is the status of an error.
    """
    left = list(services)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path != PATH:
            items = {"/api/v1/namespaces/video/pods": pods, "/api/v1/namespaces/video/events": events}[request.url.path]
            return httpx.Response(200, json={"items": list(items)})
        state = left.pop(0) if len(left) > 1 else left[0]
        return httpx.Response(state, text="away") if isinstance(state, int) else httpx.Response(200, json=state)

    return httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(rollout, "POLL_S", 0.01)
    return []


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "PATIENCE_S", 0.05)


def test_it_waits_until_the_newest_version_serves_twice_in_a_row(lines: list[str]) -> None:
    states: list[Json | int] = [service(observed=1), 503, service(), service(upgrading="True"), service(), service()]
    await_rollout(api(states), "video", "ryla", timeout_s=60, say=lines.append)
    assert [line.split(" (")[0] for line in lines] == [
        "the operator has not seen this version yet",
        "the API server does not answer",
        "up",
        "the new cluster is not ready",
        "up",
    ]


def test_a_time_limit_ends_with_what_is_missing(lines: list[str]) -> None:
    with pytest.raises(RolloutFailed, match=r"not up after 0.1 s: .*DEPLOY_FAILED No module named 'serve'"):
        await_rollout(api([service(upgrading="True")]), "video", "ryla", timeout_s=0.1, say=lines.append)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("cluster", ["ryla-b", "other"])
def test_a_stuck_container_of_its_own_ends_it_early(lines: list[str], cluster: str) -> None:
    client = api([service(upgrading="True")], [pod("ryla-a", None), pod(cluster, "ImagePullBackOff")])
    expected = (
        "ryla-b-head, container ray-head: ImagePullBackOff" if cluster == "ryla-b" else "^application ryla: DEPLOY_FAILED"
    )
    with pytest.raises(RolloutFailed, match=expected):
        await_rollout(client, "video", "ryla", timeout_s=60, say=lines.append)


def test_a_service_that_the_account_may_not_read_ends_it(lines: list[str]) -> None:
    with pytest.raises(RolloutFailed, match=f"GET {PATH}: 403"):
        await_rollout(api([403]), "video", "ryla", timeout_s=60, say=lines.append)


def test_outside_a_pod_the_error_says_where_to_run_it() -> None:
    with pytest.raises(RolloutFailed, match="this command must run in a pod"):
        rollout.in_cluster()


def test_in_a_pod_each_call_carries_the_newest_token_of_its_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_bytes(Path(certifi.where()).read_bytes())
    monkeypatch.setattr(rollout, "ACCOUNT", tmp_path)
    with rollout.in_cluster() as client:
        for token in ("first", "renewed"):
            (tmp_path / "token").write_text(token)
            assert client.auth is not None
            request = next(client.auth.sync_auth_flow(httpx.Request("GET", "https://api")))
            assert request.headers["authorization"] == f"Bearer {token}"
        assert client.base_url == "https://kubernetes.default.svc"


@pytest.mark.parametrize("path", ["pods", "events"])
def test_an_account_that_may_not_read_what_explains_a_failure_ends_it(lines: list[str], path: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(403) if request.url.path.endswith(path) else httpx.Response(200, json={**service(), "items": []})

    client = httpx.Client(base_url="https://api", transport=httpx.MockTransport(answer))
    with pytest.raises(RolloutFailed, match=rf"GET /api/v1/namespaces/video/{path}.*: 403"):
        await_rollout(client, "video", "ryla", timeout_s=60, say=lines.append)


@pytest.mark.usefixtures("_impatient")
def test_an_object_that_does_not_exist_is_named_at_once_and_ends_it_early(lines: list[str]) -> None:
    mount = 'MountVolume.SetUp failed for volume "api-keys" : secret "no-such" not found'
    about = {"kind": "Pod", "name": "ryla-b-head"}
    event = {"type": "Warning", "reason": "FailedMount", "message": mount, "involvedObject": about, "metadata": {}}
    client = api([service(upgrading="True")], [pod("ryla-b", "ContainerCreating")], [event])
    with pytest.raises(RolloutFailed, match=r'Pod ryla-b-head: FailedMount .*secret "no-such" not found'):
        await_rollout(client, "video", "ryla", timeout_s=60, say=lines.append)
    assert 'secret "no-such" not found' in lines[0], "the first look says it"


@pytest.mark.usefixtures("_impatient")
def test_a_pod_without_a_node_is_named_but_waited_for(lines: list[str]) -> None:
    waiting = pod("ryla-b", None)
    message = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    waiting["status"] = {"conditions": [{"type": "PodScheduled", "status": "False", "message": message}]}
    states: list[Json | int] = [service(upgrading="True"), service(), service()]
    await_rollout(api(states, [waiting]), "video", "ryla", timeout_s=60, say=lines.append)
    assert lines[0].endswith(f"ryla-b-head has no node: {message}")
    assert lines[-1] == "up"
