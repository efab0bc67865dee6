"""The chart's dashboards and alerts query metrics that Ray really exports."""

import json
from typing import Any

import httpx
import promql_parser
import pytest
import ray
import yaml
from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

from helm.generator.paths import CHART
from tests.graph.conftest import Service, wait_until

pytestmark = pytest.mark.graph

ONLY_AT_SCALE = {"autoscaler_pending_nodes"}
"""Exported by the autoscaler's own process."""


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


def test_every_queried_metric_is_exported(service: Service, http: httpx.Client) -> None:
    queried = {selector.name for text in _expressions() for selector in _selectors(promql_parser.parse(text))}
    assert len(queried) > 12
    body = {"prompt": json.dumps({"name": "metrics"}), "length": 1, "steps": 1}
    assert http.post(f"{service.fake}/wan2.6", json=body).status_code == 200
    gpu = {f"ray_{name}" for name in METRICS_GAUGES if name.startswith(("node_gpu", "node_gram"))}
    assert {"ray_node_gpus_utilization", "ray_node_gram_used"} <= gpu
    wait_until(lambda: queried <= _exported(service) | gpu | ONLY_AT_SCALE, 60)
