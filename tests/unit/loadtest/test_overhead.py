"""What the graph adds to the time of the models."""

import httpx
import pytest

from loadtest.overhead import Overhead, measure_overhead, overhead_of
from serve.client import Answer, Client
from tests.unit.serve.cli.live_service import live_service
from tests.unit.serve.fake_graph import FakeGraph


def answer(seconds: float, execution: float) -> Answer:
    return Answer(b"", httpx.Headers({"X-Execution-Time-Sec": f"{execution:.3f}"}), seconds)


def test_the_overhead_is_the_median_of_what_the_models_did_not_take() -> None:
    found = overhead_of("wan2.6", [answer(1.0, 0.9), answer(9.0, 2.0), answer(1.2, 1.18)])
    assert found.call_s == pytest.approx(1.2)
    assert found.graph_s == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("call_s", "graph_s", "kept"),
    [(0.1, 0.03, True), (0.1, 0.031, False), (10.0, 0.2, True), (10.0, 0.21, False)],
)
def test_the_larger_of_both_limits_counts(call_s: float, graph_s: float, kept: bool) -> None:
    overhead = Overhead(endpoint="wan2.6", call_s=call_s, graph_s=graph_s)
    assert overhead.kept is kept
    assert str(overhead).startswith("kept: /wan2.6" if kept else "MISSED: /wan2.6")


@pytest.mark.slow
def test_the_first_call_warms_up_and_does_not_count() -> None:
    graph = FakeGraph()
    with live_service(graph) as url, Client(url) as client:
        overhead = measure_overhead(client, "wan2.6", 2)
    assert len(graph.wan26.requests) == 3
    assert overhead.call_s > 0
    assert overhead.graph_s == pytest.approx(overhead.call_s - 0.6, abs=0.001), "the fake model says that it took 0.6 s"
