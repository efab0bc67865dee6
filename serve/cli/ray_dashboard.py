"""What Ray's dashboard knows about a cluster: its nodes, their GPUs, and the actors that live."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from serve.client import CallFailed
from serve.client.connection import connection_options

TIMEOUT_S = 20.0
MOST_ACTORS = 10_000
"""The most actors that Ray's state API lists in one answer."""


class DashboardUnavailable(Exception):
    """The dashboard gave no answer, or one that cannot be read; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU of a node. Memory is in MiB; ``used_percent`` is None where it is not measured."""

    node: str
    index: int
    name: str
    memory_used: int
    memory_total: int
    used_percent: int | None


@dataclass(frozen=True, kw_only=True)
class Node:
    """A node that lives: its GPUs, and the bytes in its object store."""

    name: str
    gpus: tuple[Gpu, ...]
    object_store_bytes: int


class RayDashboard:
    """A connection to a dashboard, with Ray's token if there is one on this machine."""

    def __init__(self, url: str = "http://127.0.0.1:8265") -> None:
        try:
            self._http = httpx.Client(**connection_options(url, timeout_s=TIMEOUT_S, key=find_token()))
        except CallFailed:
            raise DashboardUnavailable(f"{url} is not the URL of Ray's dashboard; it is http://HOST:8265") from None
        self.url = url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def nodes(self) -> list[Node]:
        """Return the nodes that live."""
        answer = self._get("/nodes", view="summary")
        try:
            return [_node(raw) for raw in answer["data"]["summary"] if raw["raylet"].get("state", "ALIVE") == "ALIVE"]
        except (AttributeError, KeyError, TypeError, ValueError) as e:
            raise DashboardUnavailable(f"the dashboard at {self.url} describes its nodes in another form ({e!r})") from e

    def actors(self) -> Counter[str]:
        """Return how many actors of each class live."""
        answer = self._get(
            "/api/v0/actors", limit=MOST_ACTORS, filter_keys="state", filter_predicates="!=", filter_values="DEAD"
        )
        try:
            return Counter(str(actor["class_name"]) for actor in answer["data"]["result"]["result"])
        except (KeyError, TypeError) as e:
            raise DashboardUnavailable(
                f"the dashboard at {self.url} returned an unexpected list of actors; "
                f"is this the Ray version in constraints/? ({e!r})"
            ) from e

    def replicas(self) -> dict[str, Counter[str]]:
        """Return how many replicas each deployment of all applications has in each state."""
        answer = self._get("/api/serve/applications/")
        found: dict[str, Counter[str]] = {}
        try:
            for application in answer["applications"].values():
                for name, deployment in (application.get("deployments") or {}).items():
                    states = found.setdefault(str(name), Counter())
                    states.update(str(replica["state"]) for replica in deployment.get("replicas") or ())
        except (AttributeError, KeyError, TypeError) as e:
            raise DashboardUnavailable(f"the dashboard at {self.url} describes Serve in another form ({e!r})") from e
        return found

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        try:
            response = self._http.get(path, params=parameters)
            answer = response.json() if response.status_code == 200 else None
        except (httpx.HTTPError, httpx.InvalidURL) as e:
            raise DashboardUnavailable(f"no answer from Ray's dashboard at {self.url} ({e})") from e
        except ValueError as e:
            raise DashboardUnavailable(f"{self.url}{path} is not JSON: is it Ray's dashboard?") from e
        if response.status_code in (401, 403):
            raise DashboardUnavailable(
                f"Ray's dashboard at {self.url} wants a token: set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to its file"
            )
        if not isinstance(answer, dict):
            raise DashboardUnavailable(f"Ray's dashboard at {self.url} answers {path} with {response.status_code}")
        return answer


def find_token(environment: Mapping[str, str] | None = None) -> str | None:
    """Return Ray's token where Ray itself looks for it; None if there is none."""
    environment = os.environ if environment is None else environment
    if token := environment.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = environment.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else Path(environment.get("HOME", "~")).expanduser() / ".ray" / "auth_token"
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _node(raw: Mapping[str, Any]) -> Node:
    name = str(raw.get("hostname") or raw["raylet"].get("nodeManagerHostname") or raw.get("ip") or "")
    gpus = tuple(
        Gpu(
            node=name,
            index=int(gpu["index"]),
            name=str(gpu["name"]),
            memory_used=int(gpu["memoryUsed"]),
            memory_total=int(gpu["memoryTotal"]),
            used_percent=None if gpu.get("utilizationGpu") is None else int(gpu["utilizationGpu"]),
        )
        for gpu in raw.get("gpus") or ()
    )
    return Node(name=name, gpus=gpus, object_store_bytes=int(raw["raylet"].get("objectStoreUsedMemory") or 0))
