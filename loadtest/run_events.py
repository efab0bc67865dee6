"""What a load test does besides its users: collects measures, judges them, writes the report."""

import sys
from pathlib import Path
from typing import Any

from locust.env import Environment
from locust.runners import WorkerRunner

from loadtest.caller import MEASURES, Caller
from loadtest.measures import Measures
from loadtest.payloads import SIZES
from loadtest.report import EndpointLine, Point, Report, write_report
from loadtest.thresholds import Threshold, judge

KEPT = ("errors<=0",)
"""The thresholds of every run."""


class Run:
    """One run of Locust in one process: it holds what all workers have measured."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.total = Measures()
        self._judged = False

    def begin(self, **_: Any) -> None:
        """Have all users of this process send requests of the chosen size."""
        Caller.size = getattr(self._environment.parsed_options, "size", SIZES[0])

    def report(self, data: dict[str, Any], **_: Any) -> None:
        """Add what this worker has measured to its report to the master."""
        data["measures"] = MEASURES.take().to_json()

    def collect(self, data: dict[str, Any], **_: Any) -> None:
        """Count what a worker has measured."""
        if "measures" in data:
            self.total.merge(Measures.from_json(data["measures"]))

    def is_enough(self) -> bool:
        """Return whether there were as many answers as `--answers` says."""
        wanted = getattr(self._environment.parsed_options, "answers", 0)
        return 0 < wanted <= self.total.answers + MEASURES.answers

    def end(self, **_: Any) -> None:
        """Judge the thresholds, print them, write the report, and set Locust's exit code."""
        environment = self._environment
        if self._judged or isinstance(environment.runner, WorkerRunner):
            return
        self._judged = True
        self.total.merge(MEASURES.take())
        options = environment.parsed_options
        assert options is not None
        thresholds = [*map(Threshold.parse, (*KEPT, *options.threshold))]
        verdicts = judge(thresholds, self.total)
        report = Report(self.total, verdicts, _lines(environment), _points(environment), options.host or environment.host or "")
        for line in report.text_lines():
            print(line)
        for verdict in verdicts:
            print(verdict, file=sys.stdout if verdict.kept else sys.stderr)
        if options.report:
            write_report(report, Path(options.report))
        answered = sum(line.requests for line in report.lines)
        if not answered:
            print("no request was sent", file=sys.stderr)
        environment.process_exit_code = 0 if answered and all(verdict.kept for verdict in verdicts) else 1


def attach(environment: Environment) -> Run:
    """Have a run follow the events of ``environment``."""
    run = Run(environment)
    environment.events.test_start.add_listener(run.begin)
    environment.events.report_to_master.add_listener(run.report)
    environment.events.worker_report.add_listener(run.collect)
    environment.events.quitting.add_listener(run.end)
    return run


def _lines(environment: Environment) -> list[EndpointLine]:
    entries = sorted(environment.stats.entries.values(), key=lambda entry: str(entry.name))
    return [
        EndpointLine(
            name=str(entry.name),
            method=str(entry.method),
            requests=entry.num_requests,
            failures=entry.num_failures,
            a_second=entry.total_rps,
            quantiles_ms=tuple(float(entry.get_response_time_percentile(share)) for share in (0.5, 0.95, 0.99)),
        )
        for entry in entries
    ]


def _points(environment: Environment) -> list[Point]:
    points = []
    for entry in environment.stats.history:
        users, rate, failing = (_latest(entry.get(name, 0)) for name in ("user_count", "current_rps", "current_fail_per_sec"))
        points.append(Point(users=users, requests_a_second=rate, failures_a_second=failing))
    return points


def _latest(value: Any) -> float:
    """Return the number in an entry of Locust's history, which may be a pair of time and number."""
    return float(value[-1] if isinstance(value, list | tuple) else value)
