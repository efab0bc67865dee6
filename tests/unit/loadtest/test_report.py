"""The report of a load test."""

from pathlib import Path

from loadtest.measures import FIRST_PROGRESS, SECONDS, Measures
from loadtest.report import EndpointLine, Point, Report, render, write_report
from loadtest.thresholds import Threshold, judge
from tests.unit.loadtest.report_cells import Cells


def report_of(measures: Measures) -> Report:
    verdicts = judge([Threshold.parse("errors<=0"), Threshold.parse("seconds:wan2.6:p95<=1")], measures)
    line = EndpointLine(name="/wan2.6", method="POST", requests=4, failures=1, a_second=0.5, quantiles_ms=(10.0, 20.0, 30.0))
    points = [
        Point(users=1, requests_a_second=0, failures_a_second=0),
        Point(users=4, requests_a_second=2, failures_a_second=1),
    ]
    return Report(measures, verdicts, [line], points, "http://127.0.0.1:8000")


def test_the_report_shows_thresholds_requests_and_measures() -> None:
    measures = Measures()
    measures.add(SECONDS, "wan2.6", 2.0)
    measures.add(FIRST_PROGRESS, "wan2.6", 0.25)
    rows = Cells(render(report_of(measures))).rows
    assert ["errors <= 0", "0", "kept"] in rows
    assert ["seconds:wan2.6:p95 <= 1", "2", "missed"] in rows
    assert ["POST /wan2.6", "4", "1", "0.50", "10", "20", "30"] in rows
    assert ["wan2.6: first_progress", "s", "1", "0.25", "0.25", "0.25", "0.25", "0.25"] in rows


def test_what_a_service_sent_is_text_in_the_report() -> None:
    measures = Measures()
    measures.add_error("500 <script>alert(1)</script>")
    cells = Cells(render(report_of(measures)))
    assert ["500 <script>alert(1)</script>", "1"] in cells.rows
    assert "script" not in cells.tags


def test_the_chart_spans_its_height() -> None:
    html = render(report_of(Measures()))
    assert 'points="0.0,135.0 900.0,0.0"' in html, "users go from 1 to 4, of which the chart is as high"


def test_the_folder_of_the_report_is_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "load.html"
    write_report(report_of(Measures()), path)
    assert path.read_text().startswith("<!doctype html>")
