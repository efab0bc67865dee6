"""The metrics as they are read from the agents of Ray's nodes, which are HTTP servers here."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prometheus_client.parser import text_string_to_metric_families

from serve.telemetry import exposition
from serve.telemetry.exposition import Exposition, MetricsUnreadable, merge

ONE = """# HELP ray_node_cpu CPU.
# TYPE ray_node_cpu gauge
ray_node_cpu{ip="1"} 3.0
# HELP ray_ryla_requests_total Requests.
# TYPE ray_ryla_requests_total counter
ray_ryla_requests_total{endpoint="wan2.6",node="1"} 3.0
# HELP ray_ryla_queue_seconds Queue.
# TYPE ray_ryla_queue_seconds histogram
ray_ryla_queue_seconds_bucket{le="1.0",node="1"} 1.0
ray_ryla_queue_seconds_bucket{le="+Inf",node="1"} 1.0
ray_ryla_queue_seconds_count{node="1"} 1.0
ray_ryla_queue_seconds_sum{node="1"} 0.5
# TYPE ray_ryla_not_in_the_table gauge
ray_ryla_not_in_the_table 1.0
"""
TWO = """# HELP ray_ryla_requests_total Requests.
# TYPE ray_ryla_requests_total counter
ray_ryla_requests_total{endpoint="wan2.6",node="2"} 4.0
"""


class Agent:
    """The agent of one node."""

    def __init__(self, text: str, status: int) -> None:
        self.asked = 0
        agent = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                agent.asked += 1
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/metrics"


@contextmanager
def agent(text: str, status: int = 200) -> Iterator[Agent]:
    running = Agent(text, status)
    thread = threading.Thread(target=running.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        running.server.server_close()
        thread.join()


def test_only_our_families_are_kept_and_each_once() -> None:
    families = {family.name: family for family in text_string_to_metric_families(merge([ONE, TWO]))}
    assert set(families) == {"ray_ryla_requests", "ray_ryla_queue_seconds"}
    requests = families["ray_ryla_requests"]
    assert (requests.type, requests.documentation) == ("counter", "Requests.")
    assert {sample.labels["node"]: sample.value for sample in requests.samples} == {"1": 3.0, "2": 4.0}
    assert families["ray_ryla_queue_seconds"].type == "histogram"
    assert len(families["ray_ryla_queue_seconds"].samples) == 4
    assert merge([ONE, TWO]).count("# TYPE ray_ryla_requests_total") == 1


async def test_all_nodes_are_read_and_one_that_fails_is_named() -> None:
    with agent(ONE) as one, agent(TWO) as two, agent("away", 500) as broken:
        text = await Exposition(lambda: [one.url, two.url, broken.url]).text()
    assert 'node="1"' in text
    assert 'node="2"' in text
    assert text.endswith(f"# {broken.url} does not answer\n")


async def test_however_many_ask_the_agents_are_asked_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    with agent(ONE) as one:
        exposed = Exposition(lambda: [one.url])
        texts = await asyncio.gather(*(exposed.text() for _ in range(20)))
        assert len(set(texts)) == 1
        assert one.asked == 1
        monkeypatch.setattr(exposition, "MAX_AGE_S", -1.0)
        await exposed.text()
        assert one.asked == 2


async def test_while_the_head_is_away_one_thread_waits_however_often_metrics_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back, calls = threading.Event(), []

    def waiting() -> list[str]:
        calls.append(threading.get_ident())
        back.wait(60)
        return []

    monkeypatch.setattr(exposition, "MAX_AGE_S", -1.0)
    monkeypatch.setattr(exposition, "TIMEOUT_S", 0.01)
    exposed = Exposition(waiting)
    try:
        for _ in range(5):
            with pytest.raises(MetricsUnreadable, match="TimeoutError"):
                await exposed.text()
        assert len(calls) == 1
    finally:
        back.set()


async def test_without_an_answer_there_are_no_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> list[str]:
        raise RuntimeError("the head is away")

    for agents in (away, lambda: [], lambda: ["http://127.0.0.1:9/metrics"]):
        with pytest.raises(MetricsUnreadable):
            await Exposition(agents).text()
    monkeypatch.setattr(exposition, "MAX_BYTES", 10)
    with agent(ONE) as one, pytest.raises(MetricsUnreadable):
        await Exposition(lambda: [one.url]).text()
