"""Alerts and dashboards over the service's own metrics, judged by Prometheus' own promtool."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from deployments.telemetry.metric import Histogram
from helm.generator.paths import CHART
from serve.telemetry.metrics import METRICS
from tests.chart.rendering import EVERYTHING, one, render

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")
LABELS = 'namespace="ryla",application="ryla"'
OUTCOME_OK = f'ray_ryla_jobs_ended_total{{{LABELS},endpoint="wan2.6",outcome="succeeded"}}'
OUTCOME_FAILED = f'ray_ryla_jobs_ended_total{{{LABELS},endpoint="wan2.6",outcome="failed"}}'
DELIVERED = f'ray_ryla_webhook_deliveries_total{{{LABELS},outcome="delivered"}}'
REPEATED = f'ray_ryla_webhook_deliveries_total{{{LABELS},outcome="repeated"}}'
FAILED = f'ray_ryla_webhook_deliveries_total{{{LABELS},outcome="failed"}}'
EXPIRY = f"ray_ryla_certificate_expiry_timestamp_seconds{{{LABELS}}}"
DAY = 86_400


def rules() -> list[dict[str, Any]]:
    """Return the rules as they are installed."""
    found: list[dict[str, Any]] = one(render(EVERYTHING), "PrometheusRule")["spec"]["groups"][0]["rules"]
    return found


def failed_answers(status: int, growth: int = 0) -> dict[str, str]:
    """Return the proxy's answers, 50 of them with ``status``, which one scrape sees first.

    ``growth`` more come each minute.
    """
    answers = f'ray_serve_num_http_requests_total{{{LABELS},route="/",status_code='
    return {f'{answers}"200"}}': "0+9x40", f'{answers}"{status}"}}': f"_x10 50+{growth}x30"}


def case(alert: str, fires: bool, series: dict[str, str], at: str = "20m", **labels: str) -> Any:
    """Return a case: the series, minute by minute, and whether the alert fires."""
    return pytest.param(alert, fires, series, at, labels, id=f"{alert}-{'fires' if fires else 'is silent'}-{len(series)}-{at}")


CASES = [
    case("RylaJobsStuck", True, {f"ray_ryla_jobs_overdue{{{LABELS},node=\"a\"}}": "0x10 1x20"}),
    case("RylaJobsStuck", False, {f"ray_ryla_jobs_overdue{{{LABELS},node=\"a\"}}": "1x3 0x30"}),
    case("RylaJobsStuck", False, {'ray_ryla_jobs_overdue{namespace="other",application="ryla"}': "1x30"}),
    case("RylaJobsWaiting", True, {f"ray_ryla_oldest_queued_job_seconds{{{LABELS}}}": "1700+60x30"}),
    case("RylaJobsWaiting", False, {f"ray_ryla_oldest_queued_job_seconds{{{LABELS}}}": "0+60x30"}),
    case("RylaJobsFailing", True, {OUTCOME_OK: "0+4x30", OUTCOME_FAILED: "0+1x30"}, endpoint="wan2.6"),
    case("RylaJobsFailing", False, {OUTCOME_OK: "0+40x30", OUTCOME_FAILED: "0+1x30"}),
    case("RylaJobsFailing", False, {OUTCOME_OK: "0x30", OUTCOME_FAILED: "0x10 1x20"}),
    case("RylaJobsFailing", True, {OUTCOME_OK: "0+4x30", OUTCOME_FAILED: "_x10 50x20"}, endpoint="wan2.6"),
    case("RylaJobsFailing", True, {OUTCOME_FAILED: "_x10 3x20"}, endpoint="wan2.6"),
    case("RylaJobsFailing", False, {OUTCOME_OK: "0+4x30", OUTCOME_FAILED: "_x10 2x20"}),
    case("RylaJobsFailing", False, {OUTCOME_OK: "0+4x60", OUTCOME_FAILED: "_x10 50x50"}, at="40m"),
    case("RylaJobsFailing", False, {OUTCOME_OK: "0+40x30", OUTCOME_FAILED: "_x10 1 1+1x20"}),
    case("RylaErrors", True, failed_answers(500, 1), at="25m"),
    case("RylaErrors", False, failed_answers(404, 1), at="25m"),
    case("RylaTimeouts", True, failed_answers(504)),
    case("RylaTimeouts", False, failed_answers(503)),
    case("RylaWebhooksFailing", True, {FAILED: "_x30 1x20"}, at="40m"),
    case("RylaWebhooksFailing", True, {DELIVERED: "0+1x60", REPEATED: "_x30 90x20"}, at="40m"),
    case("RylaWebhooksFailing", False, {DELIVERED: "_x10 5x120", FAILED: "_x10 1x120"}, at="90m"),
    case("RylaWebhooksFailing", True, {DELIVERED: "0+9x60", FAILED: "0x10 1x50"}, at="40m"),
    case("RylaWebhooksFailing", True, {DELIVERED: "0+1x60", REPEATED: "0+2x60"}, at="40m"),
    case("RylaWebhooksFailing", False, {DELIVERED: "0+9x60", REPEATED: "0+1x60", FAILED: "0x60"}, at="40m"),
    case("RylaStoreUnreachable", True, {
        f'ray_ryla_store_reachable{{{LABELS},node="a"}}': "1x30", f'ray_ryla_store_reachable{{{LABELS},node="b"}}': "1x10 0x20",
    }),
    case("RylaStoreUnreachable", False, {f'ray_ryla_store_reachable{{{LABELS},node="a"}}': "1x30"}),
    case("RylaJobsDisk", True, {
        f'ray_ryla_free_bytes{{{LABELS},node="a"}}': "9e9x30", f'ray_ryla_free_bytes{{{LABELS},node="b"}}': "9e9x10 4e9x20",
    }),
    case("RylaJobsDisk", False, {f'ray_ryla_free_bytes{{{LABELS},node="a"}}': "9e9x30"}),
    case("RylaRunnerAway", True, {
        f'ray_ryla_store_reachable{{{LABELS},node="a"}}': "1x5",
    }, namespace="ryla", application="ryla"),
    case("RylaRunnerAway", False, {f'ray_ryla_store_reachable{{{LABELS},node="a"}}': "_x10 0x20"}),
    case("RylaProvenanceFailing", False, {  # any caller can send a picture that is too small for it
        f'ray_ryla_provenance_failures_total{{{LABELS},layer="watermark"}}': "0x10 1x20",
    }),
    case("RylaProvenanceFailing", True, {
        f'ray_ryla_provenance_failures_total{{{LABELS},layer="signature"}}': "_x15 1x10",
    }, layer="signature"),
    case("RylaProvenanceFailing", False, {
        f'ray_ryla_provenance_failures_total{{{LABELS},layer="signature"}}': "_x10 1x50",
    }, at="40m"),
    case("RylaProvenanceFailing", True, {
        f'ray_ryla_provenance_failures_total{{{LABELS},layer="signature"}}': "0x10 1x20",
    }, layer="signature"),
    case("RylaProvenanceFailing", False, {f'ray_ryla_provenance_failures_total{{{LABELS},layer="signature"}}': "3x30"}),
    case("RylaCertificateExpires", True, {EXPIRY: f"{13 * DAY}x100"}, at="90m"),
    case("RylaCertificateExpires", False, {EXPIRY: f"{30 * DAY}x100"}, at="90m"),
]  # fmt: skip


def promtool(folder: Path, *arguments: str) -> str:
    assert PROMTOOL is not None
    done = subprocess.run([PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rules as Prometheus reads them."""
    folder = tmp_path_factory.mktemp("rules")
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [{"name": "ryla", "rules": rules()}]}))
    return folder


@needs_promtool
def test_all_rules_are_valid(folder: Path) -> None:
    assert f"{len(rules())} rules found" in promtool(folder, "check", "rules", "rules.yaml")


@needs_promtool
@pytest.mark.parametrize(("alert", "fires", "series", "at", "labels"), CASES)
def test_an_alert_fires_when_it_must_and_only_then(
    folder: Path, alert: str, fires: bool, series: dict[str, str], at: str, labels: dict[str, str]
) -> None:
    (rule,) = [rule for rule in rules() if rule["alert"] == alert]
    summary = rule["annotations"]["summary"]
    for name, value in labels.items():
        summary = summary.replace(f"{{{{ $labels.{name} }}}}", value)
    expected = [{"exp_labels": {**rule["labels"], **labels}, "exp_annotations": {"summary": summary}}] if fires else []
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [{"eval_time": at, "alertname": alert, "exp_alerts": expected}],
            }
        ],
    }
    (folder / "test.yaml").write_text(yaml.safe_dump(test))
    promtool(folder, "test", "rules", "test.yaml")


def test_every_alert_of_our_own_metrics_has_a_case_for_and_one_against() -> None:
    judged = {(param.values[0], param.values[1]) for param in CASES}
    assert judged >= {(rule["alert"], fires) for rule in rules() if "ray_ryla_" in rule["expr"] for fires in (True, False)}


def exported_series() -> dict[str, set[str]]:
    """Return the labels of each series that Prometheus has of our own metrics."""
    series: dict[str, set[str]] = {}
    for metric in METRICS:
        labels = {label.name for label in metric.labels}
        if isinstance(metric, Histogram):
            series |= {f"{metric.exported}{end}": labels for end in ("_count", "_sum")}
            series[f"{metric.exported}_bucket"] = labels | {"le"}
        else:
            series[metric.exported] = labels
    return series


def expressions() -> list[str]:
    found = [rule["expr"] for rule in rules()]
    for path in sorted((CHART / "files" / "dashboards").glob("*.json")):
        panels = json.loads(path.read_text())["panels"]
        found += [target["expr"].replace("$namespace", "ryla") for panel in panels for target in panel["targets"]]
    return found


def selectors(node: Any) -> list[Any]:
    """Return all vector selectors of a parsed expression."""
    if isinstance(node, promql_parser.VectorSelector):
        return [node]
    children = [getattr(node, name) for name in ("expr", "lhs", "rhs", "vector_selector", "args") if hasattr(node, name)]
    return [found for child in children for one in (child if isinstance(child, list) else [child]) for found in selectors(one)]


def test_alerts_and_dashboards_query_metrics_and_labels_of_the_table() -> None:
    exported, queried = exported_series(), set()
    for expression in expressions():
        for selector in selectors(promql_parser.parse(expression)):
            if selector.name.startswith("ray_ryla_"):
                queried.add(selector.name)
                names = {matcher.name for matcher in selector.matchers.matchers}
                assert names <= exported[selector.name] | {"namespace", "application"}, expression
    base = {name.removesuffix("_bucket") for name in queried}
    undrawn = {metric.exported for metric in METRICS} - base
    assert undrawn == {"ray_ryla_request_duration_seconds", "ray_ryla_denoise_step_seconds"}, "of these there are better ones"
