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


def _own(metric: str, *matchers: str) -> str:
    """Return the selector of one of the service's own metrics."""
    return f"ray_ryla_{metric}{{{','.join([APPLICATION, *matchers])}}}"


def _own_quantile(q: float, metric: str, by: str) -> str:
    return f"histogram_quantile({q}, sum by (le, {by}) (rate({_own(f'{metric}_bucket')}[15m])))"


def _increase(metric: str, window: str) -> str:
    """Return by how much each series of one of the service's own counters has grown.

    A series that has just appeared has grown by its whole value, for which `increase` has 0.
    """
    counter = _own(metric)
    return f"(({counter} unless {counter} offset {window}) or increase({counter}[{window}]))"


def _or_none(query: str, label: str) -> str:
    """Return ``query``, or `none` at 0 while it has no series, because nothing has happened yet."""
    return f'{query} or on() label_replace(vector(0), "{label}", "none", "", "")'


def _share(part: str, whole: str) -> str:
    """Return the share of a part, by model, which is 0 where nothing of it has happened yet."""
    total = f"sum by (model) (rate({whole}[15m]))"
    return f"(sum by (model) (rate({part}[15m])) or 0 * {total}) / {total}"


def _requests(*matchers: str) -> str:
    """Return the selector of all requests, those that Serve's proxy refuses included.

    The proxy serves every application, so that what it counts names none.
    """
    return _own("requests_total", *matchers).replace('application="ryla"', 'application=~"ryla|"')


HIT = 'result="hit"'
REFUSED = 'outcome!~"succeeded|accepted"'


JOBS = Dashboard(
    "ryla-jobs",
    "ryla-serve: jobs",
    (
        Panel(
            "Is it healthy: jobs by their end",
            "Jobs that end per second. `refused` is the caller's fault; `failed`, `busy` and `timeout` are the service's.",
            "ops",
            {"{{outcome}}": _or_none(f"sum by (outcome) (rate({_own('jobs_ended_total')}[5m]))", "outcome")},
        ),
        Panel(
            "Is it healthy: jobs that have not ended",
            "Jobs in the store by their state, and those past their deadline. RylaJobsStuck fires for these.",
            "short",
            {
                "{{state}}": f"max by (state) ({_own('jobs')})",
                "overdue": f"max({_own('jobs_overdue')})",
            },
        ),
        Panel(
            "Is it healthy: store and webhooks",
            "1 while every Runner reaches the store, else 0, and attempts of an hour to deliver webhooks.",
            "short",
            {
                "store": f"min({_own('store_reachable')}) or vector(0)",
                "webhooks {{outcome}}": _or_none(f"sum by (outcome) {_increase('webhook_deliveries_total', '1h')}", "outcome"),
            },
        ),
        Panel(
            "Is it healthy: files of jobs",
            "What is kept for all callers and for the one who keeps most, and what is free where the files are in a folder.",
            "bytes",
            {
                "kept": f"max({_own('kept_bytes')})",
                "kept for one caller": f"max({_own('kept_bytes_of_one_caller')})",
                "free": f"min({_own('free_bytes')})",
            },
        ),
        Panel(
            "Is it healthy: marks of provenance",
            "Results that could not be marked in an hour, and the days until the signing certificate expires.",
            "short",
            {
                "{{layer}}": _or_none(f"sum by (layer) {_increase('provenance_failures_total', '1h')}", "layer"),
                "days of the certificate": f"(min({_own('certificate_expiry_timestamp_seconds')}) - time()) / 86400",
            },
        ),
        Panel(
            "Is it slow: time of a job",
            "Median and 95th percentile from the acceptance of a job to its success.",
            "s",
            {
                "{{endpoint}} p50": _own_quantile(0.5, "job_duration_seconds", "endpoint"),
                "{{endpoint}} p95": _own_quantile(0.95, "job_duration_seconds", "endpoint"),
            },
        ),
        Panel(
            "Is it slow: waiting",
            "95th percentile of the wait for a turn and a replica, and the age of the oldest waiting job.",
            "s",
            {
                "{{model}} p95": _own_quantile(0.95, "queue_seconds", "model"),
                "oldest": f"max({_own('oldest_queued_job_seconds')})",
            },
        ),
        Panel(
            "Is it slow: stages",
            "95th percentile of each stage. `start` is the wait for a model that was not running.",
            "s",
            {"{{model}} {{stage}}": _own_quantile(0.95, "stage_duration_seconds", "model, stage")},
        ),
        Panel(
            "Is it slow: cold starts",
            "Jobs of an hour that waited for a model to start.",
            "short",
            {"{{model}}": _or_none(f"sum by (model) {_increase('cold_starts_total', '1h')}", "model")},
        ),
        Panel(
            "Is it slow: denoise steps",
            "Denoise steps per second of all replicas of a model.",
            "ops",
            {"{{model}}": _or_none(f"sum by (model) (rate({_own('denoise_steps_total')}[5m]))", "model")},
        ),
        Panel(
            "Is it slow: caches",
            "Share of the prompts and of the LoRA files that were in the cache.",
            "percentunit",
            {
                f"{name} {{{{model}}}}": _share(_own(f"{metric}_cache_total", HIT), _own(f"{metric}_cache_total"))
                for name, metric in (("prompts", "prompt"), ("LoRAs", "lora"))
            },
        ),
        Panel(
            "Is it dear: cost",
            "USD per hour of work on requests that succeeded, at the prices in the settings. Idle GPUs are not in it.",
            "currencyUSD",
            {"{{endpoint}}": _or_none(f"3600 * sum by (endpoint) (rate({_own('cost_usd_total')}[15m]))", "endpoint")},
        ),
        Panel(
            "Is it dear: work for a frame",
            "Seconds of work for one frame or image of a result.",
            "s",
            {
                "{{endpoint}}": f"sum by (endpoint) (rate({_own('work_seconds_total')}[15m]))"
                f" / sum by (endpoint) (rate({_own('frames_total')}[15m]))"
            },
        ),
        Panel(
            "Is it dear: GPU memory",
            "Memory that the video models have reserved.",
            "bytes",
            {"{{model}} {{gpu}}": f"max by (model, gpu) ({_own('gpu_memory_bytes')})"},
        ),
        Panel(
            "Who uses it: requests",
            "Requests per second by endpoint. The log says by which caller.",
            "reqps",
            {"{{endpoint}}": _or_none(f"sum by (endpoint) (rate({_requests()}[5m]))", "endpoint")},
        ),
        Panel(
            "Who uses it: what is refused",
            "Requests per second that are not answered with a result or a job.",
            "reqps",
            {"{{endpoint}} {{outcome}}": _or_none(f"sum by (endpoint, outcome) (rate({_requests(REFUSED)}[5m]))", "outcome")},
        ),
        Panel(
            "Who uses it: frames and faces",
            "Frames that are delivered, and faces that are found and replaced, per second.",
            "ops",
            {
                "frames": f"sum(rate({_own('frames_total')}[5m])) or vector(0)",
                "faces found": f"sum(rate({_own('faces_found_total')}[5m])) or vector(0)",
                "faces replaced": f"sum(rate({_own('faces_swapped_total')}[5m])) or vector(0)",
            },
        ),
    ),
)

DASHBOARDS = (
    JOBS,
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
                    "errors": f'(sum(rate(ray_serve_num_http_requests_total{{{APPLICATION},status_code=~"5.."}}[5m])) or vector(0))'
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
                {"pending": f"sum(autoscaler_pending_nodes{{{PODS}}}) or vector(0)"},
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
