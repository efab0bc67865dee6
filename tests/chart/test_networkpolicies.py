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
NGINX = ({"kubernetes.io/metadata.name": "ryla"}, {**RYLA, "app.kubernetes.io/component": "gateway"})
CALLER = ({"kubernetes.io/metadata.name": "ingress"}, {"app": "ingress"})
IMPOSTOR = ({"kubernetes.io/metadata.name": "other"}, {"app.kubernetes.io/name": "kuberay-operator"})
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


def _allows(rule: Json, key: str, peer: Peer, home: dict[str, str], port: int) -> bool:
    """Whether a rule admits a peer; ``home`` has the labels of the policy's namespace."""
    if "ports" in rule and port not in [p["port"] for p in rule["ports"]]:
        return False
    for admitted in rule.get(key, [{"namespaceSelector": {}}]):
        inside = _selects(admitted["namespaceSelector"], peer[0]) if "namespaceSelector" in admitted else peer[0] == home
        if inside and _selects(admitted.get("podSelector"), peer[1]):
            return True
    return False


def _reaches(objects: list[Json], source: Peer, target: Peer, port: int) -> bool:
    policies = [o for o in objects if o["kind"] == "NetworkPolicy" and "Ingress" in o["spec"]["policyTypes"]]
    policies = [o for o in policies if _selects(o["spec"]["podSelector"], target[1])]
    rules = [rule for policy in policies for rule in policy["spec"]["ingress"]]
    return not policies or any(_allows(rule, "from", source, target[0], port) for rule in rules)


def _leaves(objects: list[Json], source: Peer, target: Peer, port: int) -> bool:
    policies = [o for o in objects if o["kind"] == "NetworkPolicy" and "Egress" in o["spec"]["policyTypes"]]
    policies = [o for o in policies if _selects(o["spec"]["podSelector"], source[1])]
    rules = [rule for policy in policies for rule in policy["spec"]["egress"]]
    return not policies or any(_allows(rule, "to", target, source[0], port) for rule in rules)


@pytest.mark.parametrize(
    ("source", "target", "port", "open_"),
    [
        (OPERATOR, HEAD, 8265, True),
        (OPERATOR, HEAD, 6379, False),
        (GPU, HEAD, 6379, True),
        (HEAD, GPU, 52365, True),
        (CALLER, NGINX, 8000, True),
        (CALLER, NGINX, 8081, False),
        (CALLER, HEAD, 8000, False),
        (NGINX, HEAD, 8000, True),
        # This pod is not an endpoint of the Service, but one rule covers all Ray pods.
        (NGINX, GPU, 8000, True),
        (NGINX, HEAD, 8265, False),
        (NGINX, HEAD, 6379, False),
        (CALLER, HEAD, 8265, False),
        (CALLER, GPU, 10002, False),
        (STRANGER, NGINX, 8000, False),
        (STRANGER, HEAD, 8000, False),
        (STRANGER, HEAD, 8265, False),
        (STRANGER, HEAD, 8080, False),
        (PROMETHEUS, GPU, 8080, True),
        (PROMETHEUS, HEAD, 44217, True),
        (PROMETHEUS, HEAD, 8000, False),
        (JOB, NGINX, 8000, True),
        (JOB, HEAD, 8000, False),
        (JOB, HEAD, 8265, False),
        (HEAD, REDIS, 6379, True),
        (CALLER, REDIS, 6379, False),
        (NGINX, REDIS, 6379, False),
        (JOB, REDIS, 6379, False),
    ],
)
def test_only_the_right_peers_reach_each_port(source: Peer, target: Peer, port: int, open_: bool) -> None:
    callers = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "ingress"}}}]
    objects = render({**EVERYTHING, "networkPolicy": {"callers": callers}})
    assert _reaches(objects, source, target, port) is open_


@pytest.mark.parametrize("source", [CALLER, JOB])
def test_without_the_gateway_callers_reach_the_proxies(source: Peer) -> None:
    objects = render({"gateway": {"enabled": False}})
    assert _reaches(objects, source, HEAD, 8000)
    assert not _reaches(objects, source, HEAD, 8265)


@pytest.mark.parametrize(("namespace", "impostor"), [("", True), ("kuberay", False)])
def test_the_operator_is_admitted_by_its_namespace_if_that_is_set(namespace: str, impostor: bool) -> None:
    objects = render({"networkPolicy": {"operatorNamespace": namespace}})
    assert _reaches(objects, OPERATOR, HEAD, 8265)
    assert _reaches(objects, IMPOSTOR, HEAD, 8265) is impostor


def test_egress_is_open_unless_it_is_limited() -> None:
    assert all(o["spec"]["policyTypes"] == ["Ingress"] for o in render() if o["kind"] == "NetworkPolicy")


@pytest.mark.parametrize(
    ("source", "target", "port", "open_"),
    [
        (GPU, HEAD, 6379, True),
        (HEAD, GPU, 10002, True),
        (HEAD, REDIS, 6379, True),
        (GPU, REDIS, 22, False),
        (GPU, STRANGER, 53, True),
        (GPU, STRANGER, 443, False),
        (GPU, NGINX, 8000, False),
        (GPU, PROMETHEUS, 9090, True),
        (HEAD, STRANGER, 443, True),
        (HEAD, STRANGER, 80, False),
    ],
)
def test_limited_egress(source: Peer, target: Peer, port: int, open_: bool) -> None:
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    egress = {
        "enabled": True,
        "apiServer": [{"namespaceSelector": {}}],
        "allow": [{"to": [monitoring], "ports": [{"port": 9090, "protocol": "TCP"}]}],
    }
    objects = render({**EVERYTHING, "networkPolicy": {"egress": egress}})
    assert _leaves(objects, source, target, port) is open_
