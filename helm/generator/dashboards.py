"""Grafana's dashboards of the chart, from a short description of each."""

from dataclasses import dataclass
from typing import Any

APPLICATION = 'application="ryla",namespace="$namespace"'
PODS = 'namespace="$namespace"'


@dataclass(frozen=True)
class Panel:
    """A graph. ``queries``: legend -> PromQL. ``unit``: Grafana's name of it."""

    title: str
    help: str
    unit: str
    queries: dict[str, str]
    width: int = 12


@dataclass(frozen=True)
class Dashboard:
    """A page of graphs."""

    name: str
    title: str
    panels: tuple[Panel, ...]


def _quantile(q: float, metric: str, by: str) -> str:
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({metric}_bucket{{{APPLICATION}}}[5m]))) / 1000"


DASHBOARDS = (
    Dashboard(
        "ryla-service",
        "ryla-serve: service",
        (
            Panel(
                "Requests",
                "Answers a second by status. 499: the caller left.",
                "reqps",
                {"{{status_code}}": f"sum by (status_code) (rate(ray_serve_num_http_requests_total{{{APPLICATION}}}[5m]))"},
            ),
            Panel(
                "Share of faults",
                "Answers of 500 and above. Alert RylaErrors is at 5 %.",
                "percentunit",
                {
                    "faults": f'sum(rate(ray_serve_num_http_requests_total{{{APPLICATION},status_code=~"5.."}}[5m]))'
                    f" / sum(rate(ray_serve_num_http_requests_total{{{APPLICATION}}}[5m]))"
                },
            ),
            Panel(
                "Time in a deployment",
                "Median and 95th percentile of the calls of each deployment: what a replica took, without the queue.",
                "s",
                {
                    "{{deployment}} p50": _quantile(0.5, "ray_serve_deployment_processing_latency_ms", "deployment"),
                    "{{deployment}} p95": _quantile(0.95, "ray_serve_deployment_processing_latency_ms", "deployment"),
                },
            ),
            Panel(
                "Time of a request",
                "Median and 95th percentile from the proxy's side, the queue and a model's start included.",
                "s",
                {
                    "p50": _quantile(0.5, "ray_serve_http_request_latency_ms", "application"),
                    "p95": _quantile(0.95, "ray_serve_http_request_latency_ms", "application"),
                },
            ),
            Panel(
                "Waiting",
                "Requests that wait for a replica. Alert RylaQueue is at 8 for 15 minutes.",
                "short",
                {"{{deployment}}": f"sum by (deployment) (ray_serve_deployment_queued_queries{{{APPLICATION}}})"},
            ),
            Panel(
                "Under way",
                "Requests at replicas.",
                "short",
                {"{{deployment}}": f"sum by (deployment) (ray_serve_num_ongoing_requests_at_replicas{{{APPLICATION}}})"},
            ),
            Panel(
                "Replicas",
                "Healthy ones, and how many the autoscaler wants.",
                "short",
                {
                    "{{deployment}} healthy": f"sum by (deployment) (ray_serve_deployment_replica_healthy{{{APPLICATION}}})",
                    "{{deployment}} wanted": f"max by (deployment) (ray_serve_autoscaling_target_replicas{{{APPLICATION}}})",
                },
            ),
            Panel(
                "Start of a replica",
                "95th percentile: pod, image, weights, warm-up.",
                "s",
                {"{{deployment}}": _quantile(0.95, "ray_serve_replica_startup_latency_ms", "deployment")},
            ),
        ),
    ),
    Dashboard(
        "ryla-cluster",
        "ryla-serve: cluster",
        (
            Panel("Pods", "Ray nodes that are up.", "short", {"up": f"sum(ray_cluster_active_nodes{{{PODS}}})"}),
            Panel(
                "Pods asked for",
                "What the autoscaler waits for. Alert RylaNodesPending is at 30 minutes.",
                "short",
                {"pending": f"sum(autoscaler_pending_nodes{{{PODS}}})"},
            ),
            Panel(
                "Memory",
                "Share of each pod's limit. Alert RylaMemory is at 90 %.",
                "percentunit",
                {"{{ray_io_group}} {{ip}}": f"ray_node_mem_used{{{PODS}}} / ray_node_mem_total{{{PODS}}}"},
            ),
            Panel(
                "CPU",
                "Share of each pod's CPUs.",
                "percent",
                {"{{ray_io_group}} {{ip}}": f"ray_node_cpu_utilization{{{PODS}}}"},
            ),
            Panel(
                "GPU",
                "Use of each GPU: a model that denoises is near 100 %.",
                "percent",
                {"{{ray_io_group}} {{ip}} {{GpuIndex}}": f"ray_node_gpus_utilization{{{PODS}}}"},
            ),
            Panel(
                "GPU memory",
                "In use on each GPU.",
                "decmbytes",
                {"{{ray_io_group}} {{ip}} {{GpuIndex}}": f"ray_node_gram_used{{{PODS}}}"},
            ),
            Panel(
                "Object store",
                "Frames between replicas. It should stay small: flow control holds a few chunks a request.",
                "bytes",
                {"{{ip}}": f"sum by (ip) (ray_object_store_used_memory{{{PODS}}})"},
            ),
            Panel(
                "Controller",
                "Seconds of a round of Serve's control loop.",
                "s",
                {"p95": f"max(ray_serve_controller_control_loop_duration_s{{{PODS}}})"},
            ),
        ),
    ),
)


def grafana(dashboard: Dashboard) -> dict[str, Any]:
    """The dashboard as Grafana (schema 39) imports it."""
    return {
        "uid": dashboard.name,
        "title": dashboard.title,
        "tags": ["ryla-serve", "ray"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [
                {"name": "datasource", "type": "datasource", "query": "prometheus"},
                {
                    "name": "namespace",
                    "type": "query",
                    "datasource": {"type": "prometheus", "uid": "${datasource}"},
                    "query": "label_values(ray_serve_application_status, namespace)",
                    "refresh": 2,
                },
            ]
        },
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    source = {"type": "prometheus", "uid": "${datasource}"}
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": source,
        "gridPos": {"x": number % 2 * 12, "y": number // 2 * 8, "w": panel.width, "h": 8},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": {"fillOpacity": 10}}, "overrides": []},
        "options": {"legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull", "max"]}},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": source, "expr": expression, "legendFormat": legend}
            for index, (legend, expression) in enumerate(panel.queries.items())
        ],
    }
