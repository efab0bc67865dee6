"""The report of a load test: one HTML file without scripts, and lines for a terminal."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from pathlib import Path

from loadtest.measures import MEASURES, Measures, statistic
from loadtest.thresholds import Verdict

SHOWN = ("p50", "p95", "p99", "mean", "max")
"""The statistics of a measure that a report shows."""
WIDTH, HEIGHT = 900, 180
"""The size of the chart in pixels."""
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse;margin:1rem 0}td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #ccc}"
    "td:first-child,th:first-child{text-align:left}.kept{color:#060}.missed{color:#b00;font-weight:bold}"
)


@dataclass(frozen=True, kw_only=True)
class EndpointLine:
    """What Locust counted of one kind of request. ``quantiles_ms`` are p50, p95 and p99."""

    name: str
    method: str
    requests: int
    failures: int
    a_second: float
    quantiles_ms: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """A moment of the run."""

    users: float
    requests_a_second: float
    failures_a_second: float


@dataclass(frozen=True)
class Report:
    """Everything that a report shows."""

    measures: Measures
    verdicts: Sequence[Verdict]
    lines: Sequence[EndpointLine]
    points: Sequence[Point]
    host: str

    def text_lines(self) -> Iterator[str]:
        """Yield our own measures and the errors, one line each."""
        for (name, endpoint), values in sorted(self.measures.values.items()):
            shown = ", ".join(f"{what} {statistic(values, what):.3g}" for what in SHOWN)
            yield f"{endpoint}: {name} ({MEASURES[name].unit}): {shown}, of {values.count}"
        for text, count in sorted(self.measures.errors.items()):
            yield f"error, {count} times: {text}"


def write_report(report: Report, path: Path) -> None:
    """Write the HTML file, and the folder that it is in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """Return the report as HTML. Whatever a service has sent is escaped."""
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    verdicts = [
        (str(v.threshold), "never measured" if v.value is None else f"{v.value:.4g}", "kept" if v.kept else "missed")
        for v in report.verdicts
    ]
    requests = [
        (
            f"{line.method} {line.name}",
            str(line.requests),
            str(line.failures),
            f"{line.a_second:.2f}",
            *(f"{value:.0f}" for value in line.quantiles_ms),
        )
        for line in report.lines
    ]
    values = [
        (
            f"{endpoint}: {name}",
            MEASURES[name].unit,
            str(histogram.count),
            *(f"{statistic(histogram, what):.3g}" for what in SHOWN),
        )
        for (name, endpoint), histogram in sorted(report.measures.values.items())
    ]
    meanings = "".join(f"<li><b>{m.name}</b> ({m.unit}): {escape(m.meaning)}</li>" for m in MEASURES.values())
    errors = [(text, str(count)) for text, count in sorted(report.measures.errors.items())]
    parts = [
        "<h1>Load test</h1>",
        f"<p>{escape(report.host)}, {when}, from {escape(platform.node())} ({platform.machine()})</p>",
        "<h2>Thresholds</h2>",
        _table(("threshold", "measured", ""), verdicts, coloured=True),
        "<h2>Requests</h2>",
        _table(("request", "count", "failed", "a second", "p50 (ms)", "p95 (ms)", "p99 (ms)"), requests),
        _chart(report.points),
        "<h2>Measures</h2>",
        _table(("endpoint: measure", "unit", "count", *SHOWN), values),
        f"<ul>{meanings}</ul>",
        *(("<h2>Errors</h2>", _table(("error", "count"), errors)) if errors else ("<p>There were no errors.</p>",)),
    ]
    head = f'<meta charset="utf-8"><title>Load test</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(parts)}</body></html>\n'


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, coloured: bool = False) -> str:
    head = "".join(f"<th>{escape(text)}</th>" for text in heads)
    body = ""
    for row in rows:
        kind = f' class="{escape(row[-1])}"' if coloured else ""
        body += f"<tr{kind}>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>"
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _chart(points: Sequence[Point]) -> str:
    """Return a chart of users, requests and failures a second, each to a scale of its own."""
    if len(points) < 2:
        return ""
    kinds = (
        ("users", "#888", [point.users for point in points]),
        ("requests a second", "#06c", [point.requests_a_second for point in points]),
        ("failures a second", "#b00", [point.failures_a_second for point in points]),
    )
    lines, legend = "", ""
    for name, colour, values in kinds:
        most = max(values) or 1.0
        places = " ".join(
            f"{WIDTH * i / (len(values) - 1):.1f},{HEIGHT * (1 - value / most):.1f}" for i, value in enumerate(values)
        )
        lines += f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{places}"/>'
        legend += f' <span style="color:{colour}">{name} (at most {max(values):.3g})</span>'
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img">{lines}</svg><p>{legend}</p>'
