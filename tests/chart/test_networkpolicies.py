"""The network policies, evaluated for pairs of pods."""

import pytest

from tests.chart.rendering import EVERYTHING, Json, render

# A peer is a pair: the labels of its namespace, and the labels of the pod.
RYLA = {"app.kubernetes.io/part-of": "ryla-serve", "app.kubernetes.io/instance": "ryla"}
HEAD = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "head", "ray.io/is-ray-node": "yes"})
GPU = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "l40s", "ray.io/is-ray-node": "yes"})
JOB = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "job"})
REDIS = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "redis"})
OPERATOR = ({"kubernetes.io/metadata.name": "kuberay"}, {"app.kubernetes.io/name": "kuberay-operator"})
GATEWAY = ({"kubernetes.io/metadata.name": "gateway"}, {"app": "gateway"})
PROMETHEUS = ({"kubernetes.io/metadata.name": "monitoring"}, {"app": "prometheus"})
STRANGER = ({"kubernetes.io/metadata.name": "other"}, {"app": "other"})
Peer = tuple[dict[str, str], dict[str, str]]


def _selects(selector: Json | None, labels: dict[str, str]) -> bool:
    if selector is None:
        return True
    for expression in selector.get("matchExpressions", []):
        value, values = labels.get(expression["key"]), expression.get("values", [])
        fits = {"In": value in values, "NotIn": value not in values, "Exists": value is not None}[expression["operator"]]
        if not fits:
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def _reaches(objects: list[Json], source: Peer, target: Peer, port: int) -> bool:
    policies = [
        o for o in objects if o["kind"] == "NetworkPolicy" and _selects(o["spec"]["podSelector"], target[1])
    ]  # fmt: skip
    for rule in (rule for policy in policies for rule in policy["spec"]["ingress"]):
        if "ports" in rule and port not in [p["port"] for p in rule["ports"]]:
            continue
        for peer in rule["from"]:
            same = "namespaceSelector" not in peer and source[0] == target[0]
            if (same or ("namespaceSelector" in peer and _selects(peer["namespaceSelector"], source[0]))) and _selects(
                peer.get("podSelector"), source[1]
            ):
                return True
    return not policies


@pytest.mark.parametrize(
    ("source", "target", "port", "open_"),
    [
        (OPERATOR, HEAD, 8265, True),
        (OPERATOR, HEAD, 6379, False),
        (GPU, HEAD, 6379, True),
        (HEAD, GPU, 52365, True),
        (GATEWAY, HEAD, 8000, True),
        # This pod is not an endpoint of the Service, but one rule covers all Ray pods.
        (GATEWAY, GPU, 8000, True),
        (GATEWAY, HEAD, 8265, False),
        (GATEWAY, GPU, 10002, False),
        (STRANGER, HEAD, 8000, False),
        (STRANGER, HEAD, 8265, False),
        (STRANGER, HEAD, 8080, False),
        (PROMETHEUS, GPU, 8080, True),
        (PROMETHEUS, HEAD, 44217, True),
        (PROMETHEUS, HEAD, 8000, False),
        (JOB, HEAD, 8000, True),
        (JOB, HEAD, 8265, False),
        (HEAD, REDIS, 6379, True),
        (GATEWAY, REDIS, 6379, False),
        (JOB, REDIS, 6379, False),
    ],
)
def test_only_the_right_peers_reach_each_port(source: Peer, target: Peer, port: int, open_: bool) -> None:
    callers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "gateway"}}}]
    objects = render({**EVERYTHING, "networkPolicy": {"callers": callers}})
    assert _reaches(objects, source, target, port) is open_
