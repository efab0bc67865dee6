"""What the objects of a RayService say about a rollout."""

from typing import Any

import pytest

from serve.cli.rollout_state import clusters_of, failed_applications, missing, pods_of, unscheduled_pods, warnings
from tests.unit.serve.cli.cluster_objects import pod, service

Json = dict[str, Any]


def test_each_state_says_what_is_missing() -> None:
    assert missing(service()) == ""
    assert missing({"metadata": {"generation": 1}}) == "the operator has not seen this version yet"
    assert missing(service(observed=1)) == "the operator has not seen this version yet"
    assert missing(service(upgrading="True")).startswith("the new cluster is not ready (ryla: DEPLOY_FAILED No module named")
    assert missing(service(ready="False")).startswith("not ready: no endpoints")
    assert missing(service(application="DEPLOYING")) == "the application is not running (ryla: DEPLOYING)"


def test_failures_are_looked_for_in_the_active_cluster_if_no_other_is_coming() -> None:
    state = service()
    active = state["status"]["activeServiceStatus"]
    active["applicationStatuses"]["ryla"] = {"status": "DEPLOY_FAILED", "message": "out of memory"}
    state["status"]["pendingServiceStatus"] = {}
    assert failed_applications(state) == ["application ryla: DEPLOY_FAILED out of memory"]
    assert clusters_of(state) == {"ryla-a"}


def event(kind: str, name: str, reason: str, message: str, *, second: int = 0, type_: str = "Warning") -> Json:
    time = f"2026-11-25T10:00:{second:02d}Z"
    about = {"kind": kind, "name": name}
    return {
        "type": type_,
        "reason": reason,
        "message": message,
        "involvedObject": about,
        "lastTimestamp": time,
        "metadata": {"creationTimestamp": time},
    }


@pytest.mark.parametrize(
    ("reason", "message", "lasting"),
    [
        ("FailedMount", 'MountVolume.SetUp failed for volume "api-keys" : secret "keys" not found', True),
        ("FailedMount", 'MountVolume.SetUp failed for volume "config" : configmap "ryla-config" not found', True),
        ("FailedScheduling", 'persistentvolumeclaim "ryla-models" not found', True),
        ("Failed", 'Error: secret "ryla-redis" not found', True),
        ("FailedMount", "Unable to attach or mount volumes: timed out waiting for the condition", False),
        ("FailedAttachVolume", 'Multi-Attach error for volume "pvc-1"', False),
        ("FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.", False),
        ("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503", False),
    ],
)
def test_a_warning_about_a_pod_lasts_only_if_an_object_is_absent(reason: str, message: str, lasting: bool) -> None:
    pods = [pod("ryla-b", "ContainerCreating")]
    found = warnings({"items": [event("Pod", "ryla-b-head", reason, message)]}, service(upgrading="True"), pods)
    line = f"Pod ryla-b-head: {reason} ({message})"
    assert found == (([line], []) if lasting else ([], [line]))


@pytest.mark.parametrize(("kind", "name"), [("RayService", "ryla"), ("RayCluster", "ryla-b")])
def test_a_spec_that_the_operator_refuses_lasts(kind: str, name: str) -> None:
    refused = event(kind, name, f"Invalid{kind}Metadata", "name should be a valid DNS1035 label")
    stuck, passing = warnings({"items": [refused]}, service(observed=1), [])
    assert stuck == [f"{kind} {name}: Invalid{kind}Metadata (name should be a valid DNS1035 label)"]
    assert passing == []


def test_only_the_newest_warning_about_what_still_starts_counts() -> None:
    events = [
        event("Pod", "ryla-b-head", "FailedMount", "new", second=9),
        event("Pod", "ryla-b-head", "FailedMount", "old", second=1),
        event("Pod", "ryla-b-head", "Pulled", "fine", type_="Normal"),
        event("Pod", "ryla-a-head", "FailedMount", "it runs now"),
        event("Pod", "other-head", "FailedMount", "of another release"),
        event("RayService", "other", "InvalidRayServiceSpec", "of another release"),
        event("RayCluster", "other-a", "InvalidRayClusterSpec", "of another release"),
    ]
    pods = [pod("ryla-b", "ContainerCreating"), pod("ryla-a", None)]
    assert warnings({"items": events}, service(upgrading="True"), pods) == ([], ["Pod ryla-b-head: FailedMount (new)"])


def _recorded(name: str, reason: str, message: str, *times: str) -> Json:
    """Return an event as KubeRay 1.7 records it: with two times if it occurred more than once."""
    series = {"count": 2, "lastObservedTime": f"2026-11-25T10:{times[-1]}Z"} if times[1:] else None
    return {
        "type": "Warning",
        "reason": reason,
        "message": message,
        "involvedObject": {"kind": "RayService", "name": name},
        "lastTimestamp": None,
        "eventTime": f"2026-11-25T10:{times[0]}Z",
        "series": series,
        "metadata": {"creationTimestamp": f"2026-11-25T10:{times[0][:5]}Z"},
    }


def test_of_two_events_the_one_that_occurred_last_counts() -> None:
    events = [
        _recorded("ryla", "FailedToUpdateServeApplications", "again", "00:01.100000", "00:09.100000"),
        _recorded("ryla", "FailedToUpdateServeApplications", "once", "00:05.100000"),
    ]
    _, passing = warnings({"items": events}, service(upgrading="True"), [])
    assert passing == ["RayService ryla: FailedToUpdateServeApplications (again)"]


def test_what_the_operator_said_of_an_earlier_spec_is_past() -> None:
    """Else a rollout would fail for a fault of the last one, which this one mends."""
    state = service(upgrading="True")
    state["metadata"]["managedFields"] = [
        _fields("kuberay-operator", "05:00", "f:status", subresource="status"),
        _fields("kuberay-operator", "04:00", "f:spec"),
        _fields("kubectl-annotate", "03:00", "f:metadata"),
        _fields("helm", "02:00", "f:spec"),
        _fields("kubectl-edit", "01:00", "f:spec"),
    ]
    events = [
        _recorded("ryla", "InvalidRayServiceSpec", "of the earlier spec", "00:01.900000", "01:59.900000"),
        _recorded("ryla", "FailedToCreateRayCluster", "of this spec", "02:00.100000"),
        event("RayCluster", "ryla-b", "InvalidRayClusterSpec", "of the earlier spec", second=59),
    ]
    found = warnings({"items": events}, state, [])
    assert found == ([], ["RayService ryla: FailedToCreateRayCluster (of this spec)"])


def _fields(manager: str, time: str, part: str, **more: str) -> Json:
    return {"manager": manager, "time": f"2026-11-25T10:{time}Z", "fieldsV1": {part: {}}, **more}


def test_a_long_message_is_quoted_in_one_line_up_to_a_limit() -> None:
    about = event("Pod", "ryla-b-head", "FailedMount", "a\n" + "b" * 5000)
    _, (line,) = warnings({"items": [about]}, service(upgrading="True"), [pod("ryla-b", "ContainerCreating")])
    assert len(line) < 400
    assert "(a bbb" in line


def test_a_pod_that_has_a_node_is_not_listed() -> None:
    scheduled = pod("ryla-b", None)
    scheduled["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    assert unscheduled_pods([scheduled]) == []


def test_the_gateway_and_redis_belong_to_the_rollout() -> None:
    names = ["ryla-gateway-7c-x", "ryla-redis-0", "ryla-two-gateway-7c-x", "other-redis-0"]
    items = [pod("ryla-a", None), pod("ryla-two-a", None), *({"metadata": {"name": name}} for name in names)]
    assert [p["metadata"]["name"] for p in pods_of({"items": items}, service())] == ["ryla-a-head", *names[:2]]
