"""The chart's dashboards and alerts query metrics that Ray really exports."""

import json
from typing import Any

import httpx
import promql_parser
import pytest
import ray
import yaml
from prometheus_client.parser import text_string_to_metric_families
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from deployments.telemetry import metrics as deployments
from deployments.telemetry.metric import Histogram
from helm.generator.paths import CHART
from serve.http.examples import payload
from serve.telemetry import metrics as own
from serve.telemetry.metrics import METRICS
from tests.graph.conftest import Service, wait_until

pytestmark = pytest.mark.graph

ONLY_AT_SCALE = {"autoscaler_pending_nodes"}
"""Exported by the autoscaler's own process."""
NOT_HERE = {
    metric.exported
    for metric in (
        deployments.GPU_MEMORY_BYTES,
        own.CERTIFICATE_EXPIRY,
        own.PROVENANCE_FAILURES,
        own.WEBHOOKS,
    )
}
"""Our own metrics that a run without GPUs, a certificate, webhooks and faults does not have."""
PATH = "wan2.6-i2v-faceswap"
"""An endpoint whose request passes through every stage."""


@pytest.fixture(scope="module")
def used(service: Service) -> Service:
    """Return the service after it was sent what gives every metric but ``NOT_HERE`` a value."""
    with httpx.Client(timeout=120) as http:
        _use_all(service, http)
    return service


def _use_all(service: Service, http: httpx.Client) -> None:
    # The fake engine has no replica before the first request of the session, which waits for it.
    body = {"prompt": json.dumps({"name": "metrics"}), "length": 1, "steps": 1}
    assert http.post(f"{service.fake}/wan2.6", json=body).status_code == 200
    assert http.post(f"{service.url}/{PATH}", json=payload(PATH)).status_code == 200
    (lora, *_) = http.get(f"{service.url}/loras").json()["loras"]["wan26"]
    styled = {"prompt": "a red circle", "length": 1, "steps": 1, "loras": [{"name": lora["name"]}]}
    assert http.post(f"{service.url}/wan2.6", json=styled).status_code == 200


def _expressions() -> list[str]:
    rules = yaml.safe_load((CHART / "files" / "rules.yaml").read_text())
    found = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    for path in sorted((CHART / "files" / "dashboards").glob("*.json")):
        found += [t["expr"].replace("$namespace", "ryla") for p in json.loads(path.read_text())["panels"] for t in p["targets"]]
    return found


def _selectors(node: Any) -> list[Any]:
    """Return all vector selectors of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    children = [getattr(node, name) for name in ("expr", "lhs", "rhs", "vector_selector", "args") if hasattr(node, name)]
    return [found for child in children for one in (child if isinstance(child, list) else [child]) for found in _selectors(one)]


def _exported(service: Service) -> set[str]:
    names = set()
    for node in ray.nodes():
        text = httpx.get(f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10).text
        names |= {line.split("{")[0].split(" ")[0] for line in text.splitlines() if line and not line.startswith("#")}
    return names


def _family(name: str) -> str:
    """Return the name of the metric that a series belongs to."""
    histograms = {metric.exported for metric in METRICS if isinstance(metric, Histogram)}
    for end in ("_bucket", "_count", "_sum"):
        if name.removesuffix(end) in histograms:
            return name.removesuffix(end)
    return name


def test_every_queried_metric_is_exported(used: Service) -> None:
    queried = {selector.name for text in _expressions() for selector in _selectors(promql_parser.parse(text))}
    assert len(queried) > 12
    gpu = {f"ray_{name}" for name in METRICS_GAUGES if name.startswith(("node_gpu", "node_gram"))}
    assert {"ray_node_gpus_utilization", "ray_node_gram_used"} <= gpu
    wait_until(lambda: queried <= _exported(used) | gpu | ONLY_AT_SCALE | NOT_HERE, 60)


def test_the_service_has_every_documented_metric_and_no_other(used: Service, http: httpx.Client) -> None:
    documented = {metric.exported for metric in METRICS}
    expected = documented - NOT_HERE

    def scraped() -> dict[str, str]:
        response = http.get(f"{used.url}/metrics")
        assert response.status_code == 200
        families = text_string_to_metric_families(response.text)
        return {family.name + ("_total" if family.type == "counter" else ""): family.type for family in families}

    wait_until(lambda: expected <= set(scraped()), 60)
    kinds = {metric.exported: "histogram" if isinstance(metric, Histogram) else metric.kind for metric in METRICS}
    assert scraped().items() <= kinds.items()
    # The service leaves out what it does not know, and the agents do not.
    assert {_family(name) for name in _exported(used) if name.startswith("ray_ryla_")} <= documented
