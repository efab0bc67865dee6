"""Waits on Kubernetes until KubeRay has rolled out the current spec of a RayService."""

import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from serve.cli.rollout_state import (
    UNSEEN,
    failed_applications,
    missing,
    pods_of,
    stuck_containers,
    unscheduled_pods,
    warnings,
)

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
API = "https://kubernetes.default.svc"
POLL_S = 2.0
PATIENCE_S = 90.0
"""Seconds for which something that time alone does not resolve may be in the way."""
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
            # The kubelet renews the token.
            request.headers["Authorization"] = f"Bearer {(ACCOUNT / 'token').read_text()}"
            yield request

    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    return httpx.Client(base_url=API, auth=Account(), verify=context, timeout=10)


def await_rollout(api: httpx.Client, namespace: str, name: str, *, timeout_s: float, say: Callable[[str], None]) -> None:
    """Return once the RayService serves its current spec.

    The status must say so twice in a row, because the operator writes it in several steps. Raises
    RolloutFailed after ``timeout_s``, or when something that time alone does not resolve has been
    in the way for ``PATIENCE_S``: a stuck container, a failing application, an object that does not
    exist, a spec that the operator refuses. ``say`` is called with each new state, which names
    those and whatever else pods wait for.
    """
    deadline = time.monotonic() + timeout_s
    stuck_since: float | None = None
    seen, last = 0, ""
    while True:
        stuck: list[str] = []
        passing: list[str] = []
        try:
            service = _get(api, f"/apis/ray.io/v1/namespaces/{namespace}/rayservices/{name}")
            pods = pods_of(_get(api, f"/api/v1/namespaces/{namespace}/pods"), service)
            events = _get(api, f"/api/v1/namespaces/{namespace}/events?fieldSelector=type%3DWarning")
        except (httpx.TransportError, httpx.HTTPStatusError) as e:
            state = f"the API server does not answer ({e})"
        else:
            state = missing(service)
            if state:
                stuck, passing = warnings(events, service, pods)
                passing += unscheduled_pods(pods)
            stuck += stuck_containers(pods)
            if state and state != UNSEEN:
                stuck += failed_applications(service)
        if (line := "; ".join([state or "up", *stuck, *passing])) != last:
            say(line)
            last = line
        seen = seen + 1 if not state else 0
        if seen == 2:
            return
        now = time.monotonic()
        stuck_since = (stuck_since or now) if stuck else None
        if stuck_since is not None and now - stuck_since > PATIENCE_S:
            raise RolloutFailed("; ".join(stuck))
        if now > deadline:
            raise RolloutFailed(f"not up after {timeout_s:g} s: {line}")
        time.sleep(POLL_S)


def _get(api: httpx.Client, path: str) -> Json:
    response = api.get(path)
    if response.status_code >= 500 or response.status_code == 429:
        response.raise_for_status()
    if response.status_code != 200:
        raise RolloutFailed(f"GET {path}: {response.status_code} {response.text[:300]}")
    found: Json = response.json()
    return found
