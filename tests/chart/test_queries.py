"""Every query of the alerts and dashboards, run by a real Prometheus over a small exposition.

Each counter grows with every scrape, and each gauge has a value at which the alerts on it fire. So
every query must return a series: one that does not names a label or a metric that does not fit.
"""

import json
import math
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.telemetry.metric import Gauge, Histogram, Metric
from helm.generator.paths import CHART
from serve.telemetry.metrics import METRICS
from tests.chart.rendering import EVERYTHING, one, render

PROMETHEUS = shutil.which("prometheus")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROMETHEUS is None, reason="prometheus is not installed (Debian: apt install prometheus)"),
]

NAMESPACE = "ryla"
LIMIT_S = 60
"""Seconds that only a fault takes; usual are five."""
FIRING = {"ray_ryla_store_reachable": 0.0, "ray_ryla_oldest_queued_job_seconds": 1e5}
"""Values of gauges at which their alerts fire; others fire at 1."""
SERVE = """
ray_serve_application_status{application="ryla"} 1
ray_serve_autoscaling_target_replicas{application="ryla",deployment="Wan26"} 1
ray_serve_deployment_queued_queries{application="ryla",deployment="Wan26"} 9
ray_serve_deployment_replica_healthy{application="ryla",deployment="Wan26",replica="a"} 0
ray_serve_num_ongoing_requests_at_replicas{application="ryla",deployment="Wan26"} 1
ray_serve_controller_control_loop_duration_s 0.1
ray_serve_num_http_requests_total{application="ryla",route="/",status_code="200"} COUNT
ray_serve_num_http_requests_total{application="ryla",route="/",status_code="500"} COUNT
ray_serve_num_http_requests_total{application="ryla",route="/",status_code="504"} COUNT
ray_serve_deployment_processing_latency_ms_bucket{application="ryla",deployment="Wan26",le="100"} COUNT
ray_serve_deployment_processing_latency_ms_bucket{application="ryla",deployment="Wan26",le="+Inf"} COUNT
ray_serve_http_request_latency_ms_bucket{application="ryla",le="100"} COUNT
ray_serve_http_request_latency_ms_bucket{application="ryla",le="+Inf"} COUNT
ray_serve_replica_startup_latency_ms_bucket{application="ryla",deployment="Wan26",le="100"} COUNT
ray_serve_replica_startup_latency_ms_bucket{application="ryla",deployment="Wan26",le="+Inf"} COUNT
ray_cluster_active_nodes 1
ray_node_cpu_utilization{ip="10.0.0.1",ray_io_group="headgroup"} 50
ray_node_gpus_utilization{ip="10.0.0.1",ray_io_group="l40s",GpuIndex="0"} 50
ray_node_gram_used{ip="10.0.0.1",ray_io_group="l40s",GpuIndex="0"} 50
ray_node_mem_total{ip="10.0.0.1",ray_io_group="headgroup"} 100
ray_node_mem_used{ip="10.0.0.1",ray_io_group="headgroup"} 95
ray_object_store_used_memory{ip="10.0.0.1"} 100
autoscaler_pending_nodes 1
"""
"""What Ray and Serve export; tests/graph/test_metrics.py finds that they do."""


def exposition(count: int) -> str:
    """Return what an agent has; ``count`` is how much each counter has counted so far."""
    lines = [SERVE.replace("COUNT", str(count))]
    for metric in METRICS:
        # All values of the last label, and the first one of the others.
        first = {label.name: label.values[0] for label in metric.labels}
        last = metric.labels[-1] if metric.labels else None
        for value in last.values if last else ("",):
            labels = {**first, "application": "ryla", **({last.name: value} if last else {})}
            lines += samples(metric, labels, count)
    return "\n".join(lines) + "\n"


def samples(metric: Metric, labels: dict[str, str], count: int) -> list[str]:
    """Return the lines of one series of a metric."""

    def line(end: str, value: float, **more: str) -> str:
        written = ",".join(f'{name}="{text}"' for name, text in {**labels, **more}.items())
        return f"{metric.exported}{end}{{{written}}} {value}"

    if isinstance(metric, Histogram):
        buckets = [line("_bucket", count, le=str(bound)) for bound in (*metric.buckets, "+Inf")]
        return [*buckets, line("_sum", count), line("_count", count)]
    return [line("", FIRING.get(metric.exported, 1.0) if isinstance(metric, Gauge) else count)]


@contextmanager
def agent() -> Iterator[int]:
    """Serve the exposition, whose counters grow with each scrape, and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        scrapes = 0

        def do_GET(self) -> None:
            Handler.scrapes += 1
            body = exposition(100 * Handler.scrapes).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a Prometheus that has scraped the exposition at least three times."""
    assert PROMETHEUS is not None
    folder = tmp_path_factory.mktemp("prometheus")
    with agent() as port:
        scrape = {
            "job_name": "ryla",
            "static_configs": [{"targets": [f"127.0.0.1:{port}"], "labels": {"namespace": NAMESPACE}}],
        }
        config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "500ms"}, "scrape_configs": [scrape]}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        with (folder / "log").open("wb") as log:
            arguments = ["--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--web.listen-address=127.0.0.1:0"]
            process = subprocess.Popen([PROMETHEUS, *arguments], cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            with httpx.Client(base_url=address(folder / "log", process), timeout=LIMIT_S, trust_env=False) as client:
                wait_for_scrapes(client, 3)
                yield client
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def address(log: Path, process: "subprocess.Popen[bytes]") -> str:
    """Return where Prometheus listens, as its log says once it does."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        for line in log.read_text().splitlines():
            if "Listening on" in line:
                return f"http://{line.partition('address=')[2].split()[0]}"
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def wait_for_scrapes(client: httpx.Client, count: int) -> None:
    """Wait until there are ``count`` samples of each series."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        found = run(client, "count_over_time(ray_serve_application_status[1m])")
        if found and float(found[0]["value"][1]) >= count:
            return
        time.sleep(0.05)
    raise AssertionError(f"Prometheus has not scraped {count} times")


def run(client: httpx.Client, query: str) -> list[dict[str, Any]]:
    """Return the series of an instant query."""
    response = client.get("/api/v1/query", params={"query": query})
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["data"]["result"]
    return found


def panels() -> Iterator[tuple[str, str]]:
    """Yield the title and the query of each graph."""
    for path in sorted((CHART / "files" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                yield f"{path.stem}: {panel['title']}", target["expr"].replace("$namespace", NAMESPACE)


def test_every_panel_has_a_number_for_every_series(prometheus: httpx.Client) -> None:
    found = {(title, query): run(prometheus, query) for title, query in panels()}
    assert len(found) > 30
    assert [key for key, series in found.items() if not series] == []
    assert [key for key, series in found.items() if any(math.isnan(float(one["value"][1])) for one in series)] == []


def test_the_namespaces_to_choose_from_are_those_of_either_source(prometheus: httpx.Client) -> None:
    for path in sorted((CHART / "files" / "dashboards").glob("*.json")):
        (variable,) = [each for each in json.loads(path.read_text())["templating"]["list"] if each["name"] == "namespace"]
        asked = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
        assert asked is not None
        answer = prometheus.get(f"/api/v1/label/{asked[2]}/values", params={"match[]": asked[1]}).json()
        assert answer["data"] == [NAMESPACE]
        # Each of the two alone is enough.
        names = asked[1].split('"')[1].split("|")
        assert all(run(prometheus, f'{name}{{namespace="{NAMESPACE}"}}') for name in names)
        assert {name.split("_")[1] for name in names} == {"serve", "ryla"}


def test_a_panel_of_counts_says_none_where_nothing_has_happened(prometheus: httpx.Client) -> None:
    counts = [query for _, query in panels() if "label_replace" in query]
    assert len(counts) > 5
    for query in counts:
        (none,) = run(prometheus, query.replace(f'namespace="{NAMESPACE}"', 'namespace="empty"'))
        assert none["value"][1] == "0"
        assert list(none["metric"].values()) == ["none"]


def test_every_alert_fires_on_values_that_are_bad(prometheus: httpx.Client) -> None:
    alerts = {rule["alert"]: rule["expr"] for rule in one(render(EVERYTHING), "PrometheusRule")["spec"]["groups"][0]["rules"]}
    silent = {name for name, query in alerts.items() if not run(prometheus, query)}
    away = {name for name, query in alerts.items() if query.startswith("absent(")}
    assert silent == away == {"RylaControllerAway", "RylaRunnerAway"}, "what they look for is there"
    assert all(run(prometheus, alerts[name].replace(f'namespace="{NAMESPACE}"', 'namespace="empty"')) for name in away)
