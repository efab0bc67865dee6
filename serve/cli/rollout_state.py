"""What the objects of a RayService say about a rollout: what is missing, and what is in its way."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

Json = dict[str, Any]

UNSEEN = "the operator has not seen this version yet"
WAITING = frozenset(
    {"CrashLoopBackOff", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull"}
)
"""Reasons for which a container waits and which time alone does not resolve."""
ABSENT = re.compile(
    r'(secret|configmap|persistentvolumeclaim|serviceaccount|priorityclass) "?[^ "]+"? ?not found', re.IGNORECASE
)
"""The words with which an event names a missing object, which time alone does not create."""
REFUSED = "Invalid"
"""The prefix of the reasons with which the operator refuses a RayService or a RayCluster."""
LONG_AGO = datetime.min.replace(tzinfo=UTC)
MESSAGE_CHARACTERS = 300
"""The maximum number of characters that are quoted from a message of Kubernetes."""


def missing(service: Json) -> str:
    """Return what keeps a RayService from serving its current spec, or an empty string."""
    status = service.get("status") or {}
    if status.get("observedGeneration", 0) < service["metadata"]["generation"]:
        return UNSEEN
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    upgrading = conditions.get("UpgradeInProgress", {})
    if upgrading.get("status") == "True":
        return f"the new cluster is not ready{_applications(status.get('pendingServiceStatus'))}"
    ready = conditions.get("Ready", {})
    if ready.get("status") != "True":
        return f"not ready: {ready.get('message', 'no condition yet')}{_applications(status.get('pendingServiceStatus'))}"
    applications = (status.get("activeServiceStatus") or {}).get("applicationStatuses") or {}
    if not applications or any(a.get("status") != "RUNNING" for a in applications.values()):
        return f"the application is not running{_applications(status.get('activeServiceStatus'))}"
    return ""


def clusters_of(service: Json) -> set[str]:
    """Return the names of the RayClusters that a RayService has now."""
    status = service.get("status") or {}
    both = (status.get("activeServiceStatus"), status.get("pendingServiceStatus"))
    return {part["rayClusterName"] for part in both if part and part.get("rayClusterName")}


def pods_of(pods: Json, service: Json) -> list[Json]:
    """Return the pods of a RayService's clusters, and of the chart's gateway and Redis."""
    clusters = clusters_of(service)
    prefixes = tuple(f"{service['metadata']['name']}-{component}-" for component in ("gateway", "redis"))
    return [
        pod
        for pod in pods["items"]
        if (pod["metadata"].get("labels") or {}).get("ray.io/cluster") in clusters
        or pod["metadata"]["name"].startswith(prefixes)
    ]


def stuck_containers(pods: list[Json]) -> list[str]:
    """Return a sentence for each container that time alone does not start."""
    found = []
    for pod in pods:
        status = pod.get("status") or {}
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in WAITING:
                text = f"{pod['metadata']['name']}, container {container['name']}: {waiting['reason']}"
                found.append(f"{text} ({_shortened(waiting['message'])})" if waiting.get("message") else text)
    return sorted(found)


def failed_applications(service: Json) -> list[str]:
    """Return a sentence for each application that Serve could not deploy in the newest cluster."""
    status = service.get("status") or {}
    newest = status.get("pendingServiceStatus") or {}
    if not newest.get("rayClusterName"):
        newest = status.get("activeServiceStatus") or {}
    applications = newest.get("applicationStatuses") or {}
    failed = {name: a for name, a in applications.items() if a.get("status") == "DEPLOY_FAILED"}
    return [f"application {name}: DEPLOY_FAILED {a.get('message', '')[-500:]}".strip() for name, a in sorted(failed.items())]


def unscheduled_pods(pods: list[Json]) -> list[str]:
    """Return a sentence for each pod that cannot be scheduled yet; a new node may resolve that."""
    return sorted(
        f"{pod['metadata']['name']} has no node: {_shortened(condition.get('message', '?'))}"
        for pod in pods
        for condition in (pod.get("status") or {}).get("conditions", [])
        if condition["type"] == "PodScheduled" and condition["status"] == "False"
    )


def warnings(events: Json, service: Json, pods: list[Json]) -> tuple[list[str], list[str]]:
    """Return what the warnings about a RayService, its clusters and pods say.

    Those of the first list are of a kind that time alone does not resolve: an object that does not
    exist, or a spec that the operator refuses. For each kind of object and reason only the newest
    event counts. Events of pods that run are past, and so are those that the operator wrote about
    an earlier spec: Kubernetes keeps them for an hour.
    """
    written = _written(service)
    name, clusters = service["metadata"]["name"], clusters_of(service)
    starting = {p["metadata"]["name"] for p in pods if not _runs(p)}
    newest: dict[tuple[str, str, str], str] = {}
    for event in sorted(_warnings(events), key=_time):
        about, reason = event["involvedObject"], event.get("reason", "")
        kind, of = about.get("kind", ""), about.get("name", "")
        of_operator = (kind == "RayService" and of == name) or (kind == "RayCluster" and of in clusters)
        if (of_operator and _time(event) >= written) or (kind == "Pod" and of in starting):
            newest[kind, of, reason] = _shortened(event.get("message", ""))
    stuck: list[str] = []
    passing: list[str] = []
    for (kind, of, reason), message in sorted(newest.items()):
        lasting = ABSENT.search(message) or (kind != "Pod" and reason.startswith(REFUSED))
        (stuck if lasting else passing).append(f"{kind} {of}: {reason} ({message})")
    return stuck, passing


def _warnings(events: Json) -> Iterator[Json]:
    return (event for event in events["items"] if event.get("type") == "Warning")


def _time(event: Json) -> datetime:
    """Return when an event last occurred.

    Kubernetes fills other fields for each of its two kinds of events. The operator's are of the
    newer kind, which has the first time in `eventTime`, and the last one in `series` if there are
    two.
    """
    series = event.get("series") or {}
    times = (event.get("lastTimestamp"), event.get("eventTime"), series.get("lastObservedTime"))
    return max(map(_parsed, filter(None, (*times, event["metadata"].get("creationTimestamp")))), default=LONG_AGO)


def _written(service: Json) -> datetime:
    """Return when the spec of a RayService was last changed by anyone but the operator."""
    fields = service["metadata"].get("managedFields", [])
    operators = {entry["manager"] for entry in fields if entry.get("subresource") == "status"}
    changes = [
        _parsed(entry["time"])
        for entry in fields
        if entry["manager"] not in operators and "f:spec" in entry.get("fieldsV1", {}) and "time" in entry
    ]
    return max(changes, default=LONG_AGO)


def _parsed(time: str) -> datetime:
    """Parse a time of Kubernetes, without its fraction, which only some of them have."""
    return datetime.fromisoformat(time).replace(microsecond=0)


def _runs(pod: Json) -> bool:
    statuses = (pod.get("status") or {}).get("containerStatuses", [])
    return bool(statuses) and all("running" in (s.get("state") or {}) for s in statuses)


def _applications(status: Json | None) -> str:
    applications = (status or {}).get("applicationStatuses") or {}
    texts = [f"{name}: {a.get('status', '?')} {a.get('message', '')[-300:]}".strip() for name, a in applications.items()]
    return f" ({'; '.join(texts)})" if texts else ""


def _shortened(message: str) -> str:
    line = " ".join(message.split())
    return line if len(line) <= MESSAGE_CHARACTERS else f"{line[:MESSAGE_CHARACTERS]}..."
