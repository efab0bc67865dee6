"""The chart's Grafana dashboards, described panel by panel."""

from dataclasses import dataclass

APPLICATION = 'application="ryla",namespace="$namespace"'
PODS = 'namespace="$namespace"'


@dataclass(frozen=True)
class Panel:
    """A graph of a dashboard."""

    title: str
    description: str
    unit: str
    """Unit of the values, by Grafana's identifier."""
    queries: dict[str, str]
    """Legend -> PromQL."""
    width: int = 12
    """Width in columns of Grafana's grid, which has 24."""


@dataclass(frozen=True)
class Dashboard:
    """A dashboard, with its panels in order."""

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
                "Responses per second by status. 499 means that the client disconnected.",
                "reqps",
                {"{{status_code}}": f"sum by (status_code) (rate(ray_serve_num_http_requests_total{{{APPLICATION}}}[5m]))"},
            ),
            Panel(
                "Error rate",
                "Share of responses with status 500 or higher. RylaErrors fires above 5 %.",
                "percentunit",
                {
                    "errors": f'sum(rate(ray_serve_num_http_requests_total{{{APPLICATION},status_code=~"5.."}}[5m]))'
                    f" / sum(rate(ray_serve_num_http_requests_total{{{APPLICATION}}}[5m]))"
                },
            ),
            Panel(
                "Processing time by deployment",
                "Median and 95th percentile of the time that a replica takes for a call, without queueing.",
                "s",
                {
                    "{{deployment}} p50": _quantile(0.5, "ray_serve_deployment_processing_latency_ms", "deployment"),
                    "{{deployment}} p95": _quantile(0.95, "ray_serve_deployment_processing_latency_ms", "deployment"),
                },
            ),
            Panel(
                "Request latency",
                "Median and 95th percentile at the HTTP proxy, including queueing and model start-up.",
                "s",
                {
                    "p50": _quantile(0.5, "ray_serve_http_request_latency_ms", "application"),
                    "p95": _quantile(0.95, "ray_serve_http_request_latency_ms", "application"),
                },
            ),
            Panel(
                "Queued requests",
                "Requests that wait for a replica. RylaQueue fires above 8 for 15 minutes.",
                "short",
                {"{{deployment}}": f"sum by (deployment) (ray_serve_deployment_queued_queries{{{APPLICATION}}})"},
            ),
            Panel(
                "Ongoing requests",
                "Requests that replicas are processing.",
                "short",
                {"{{deployment}}": f"sum by (deployment) (ray_serve_num_ongoing_requests_at_replicas{{{APPLICATION}}})"},
            ),
            Panel(
                "Replicas",
                "Healthy replicas, and the number that the autoscaler targets.",
                "short",
                {
                    "{{deployment}} healthy": f"sum by (deployment) (ray_serve_deployment_replica_healthy{{{APPLICATION}}})",
                    "{{deployment}} target": f"max by (deployment) (ray_serve_autoscaling_target_replicas{{{APPLICATION}}})",
                },
            ),
            Panel(
                "Replica start-up time",
                "95th percentile, including the pod, the image, loading the weights and the warm-up.",
                "s",
                {"{{deployment}}": _quantile(0.95, "ray_serve_replica_startup_latency_ms", "deployment")},
            ),
        ),
    ),
    Dashboard(
        "ryla-cluster",
        "ryla-serve: cluster",
        (
            Panel("Pods", "Ray nodes that are running.", "short", {"running": f"sum(ray_cluster_active_nodes{{{PODS}}})"}),
            Panel(
                "Pending pods",
                "Pods that the autoscaler waits for. RylaNodesPending fires after 30 minutes.",
                "short",
                {"pending": f"sum(autoscaler_pending_nodes{{{PODS}}})"},
            ),
            Panel(
                "Memory",
                "Memory in use, as a share of the pod's limit. RylaMemory fires above 90 %.",
                "percentunit",
                {"{{ray_io_group}} {{ip}}": f"ray_node_mem_used{{{PODS}}} / ray_node_mem_total{{{PODS}}}"},
            ),
            Panel(
                "CPU",
                "CPU utilisation of each pod.",
                "percent",
                {"{{ray_io_group}} {{ip}}": f"ray_node_cpu_utilization{{{PODS}}}"},
            ),
            Panel(
                "GPU",
                "Utilisation of each GPU, which is near 100 % while a model denoises.",
                "percent",
                {"{{ray_io_group}} {{ip}} {{GpuIndex}}": f"ray_node_gpus_utilization{{{PODS}}}"},
            ),
            Panel(
                "GPU memory",
                "Memory in use on each GPU.",
                "decmbytes",
                {"{{ray_io_group}} {{ip}} {{GpuIndex}}": f"ray_node_gram_used{{{PODS}}}"},
            ),
            Panel(
                "Object store",
                "Memory of frames in transit between replicas. Flow control keeps it to a few chunks per request.",
                "bytes",
                {"{{ip}}": f"sum by (ip) (ray_object_store_used_memory{{{PODS}}})"},
            ),
            Panel(
                "Serve controller",
                "Duration of one iteration of Serve's control loop.",
                "s",
                {"p95": f"max(ray_serve_controller_control_loop_duration_s{{{PODS}}})"},
            ),
        ),
    ),
)
