"""Waits on Kubernetes until KubeRay has rolled out the current spec of a RayService."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = "https://kubernetes.default.svc"
POLL_S = 2.0
STUCK = frozenset(
    {"CrashLoopBackOff", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "ErrImageNeverPull"}
)
"""Reasons for which a container waits and which time alone does not resolve."""

UNSEEN = "the operator has not seen this version yet"

Json = dict[str, Any]


class RolloutFailed(Exception):
    """The new version is not up; the message says why."""


def in_cluster() -> httpx.Client:
    """Return a client of the API server with this pod's service account.

    Raises RolloutFailed outside a pod.
    """
    if not ACCOUNT.is_dir():
        raise RolloutFailed(f"there is no service account at {ACCOUNT}: this command must run in a pod")

    class Account(httpx.Auth):
        def auth_flow(self, request: httpx.Request) -> Any:
            request.headers["Authorization"] = f"Bearer {(ACCOUNT / 'token').read_text()}"  # renewed by the kubelet
            yield request

    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    return httpx.Client(base_url=API, auth=Account(), verify=context, timeout=10)


def await_rollout(
    api: httpx.Client, namespace: str, name: str, *, timeout_s: float, patience_s: float = 90, say: Callable[[str], None]
) -> None:
    """Return once the RayService serves its current spec.

    The status must say so twice in a row, because the operator writes it in several steps. Raises
    RolloutFailed after ``timeout_s``, or when a container has been stuck or an application has been
    failing for ``patience_s``. ``say`` is called with each new state.
    """
    deadline = time.monotonic() + timeout_s
    stuck_since: float | None = None
    seen, last = 0, ""
    while True:
        try:
            service = _get(api, f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/{name}")
            stuck = stuck_containers(_get(api, f"/api/v1/namespaces/{namespace}/pods"), clusters_of(service))
        except (httpx.TransportError, httpx.HTTPStatusError) as e:
            state, stuck = f"the API server does not answer ({e})", []
        else:
            state = missing(service)
            if state and state != UNSEEN:
                stuck += failed_applications(service)
        if (line := "; ".join([state or "up", *stuck])) != last:
            say(line)
            last = line
        seen = seen + 1 if not state else 0
        if seen == 2:
            return
        now = time.monotonic()
        stuck_since = (stuck_since or now) if stuck else None
        if stuck_since is not None and now - stuck_since > patience_s:
            raise RolloutFailed("; ".join(stuck))
        if now > deadline:
            raise RolloutFailed(f"not up after {timeout_s:g} s: {line}")
        time.sleep(POLL_S)


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


def stuck_containers(pods: Json, clusters: set[str]) -> list[str]:
    """Return a sentence for each stuck container of the clusters."""
    found = []
    for pod in pods["items"]:
        if (pod["metadata"].get("labels") or {}).get("ray.io/cluster") not in clusters:
            continue
        status = pod.get("status") or {}
        for container in [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]:
            waiting = (container.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in STUCK:
                text = f"{pod['metadata']['name']}, container {container['name']}: {waiting['reason']}"
                found.append(f"{text} ({waiting['message']})" if waiting.get("message") else text)
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


def _applications(status: Json | None) -> str:
    applications = (status or {}).get("applicationStatuses") or {}
    texts = [f"{name}: {a.get('status', '?')} {a.get('message', '')[-300:]}".strip() for name, a in applications.items()]
    return f" ({'; '.join(texts)})" if texts else ""


def _get(api: httpx.Client, path: str) -> Json:
    response = api.get(path)
    if response.status_code >= 500 or response.status_code == 429:
        response.raise_for_status()
    if response.status_code != 200:
        raise RolloutFailed(f"GET {path}: {response.status_code} {response.text[:300]}")
    found: Json = response.json()
    return found
