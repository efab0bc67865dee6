import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from serve.http import ingress
from serve.http.reports.access_log import is_worth_a_line
from serve.jobs.open_store import open_stores
from serve.jobs.results.outcome import Outcome
from serve.jobs.store.job_store import JobStore
from tests.unit.serve.fake_graph import FakeConsumer, FakeGraph, FakeHandle
from tests.unit.serve.http.service import make_config
from tests.unit.serve.local_jobs import Line, LocalRunner, OpenedOnUse

DEPLOYMENT: Any = ingress.Ingress
"""What Serve's decorators make of the class, which they declare to be the class itself."""


async def test_a_replica_builds_the_application_over_its_handles(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    graph, consumer, names = FakeGraph(), FakeConsumer(started=False), []
    hosts: list[str] = []

    def readiness(app_name: str) -> object:
        names.append(app_name)
        return graph.readiness

    monkeypatch.setattr("ray.serve.get_replica_context", lambda: SimpleNamespace(app_name="films"))
    monkeypatch.setattr(ingress, "Readiness", readiness)

    def consumer_end(host: str) -> FakeConsumer:
        hosts.append(host)
        return consumer

    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.7")
    monkeypatch.setattr(ingress, "ConsumerEnd", consumer_end)
    config = make_config(jobs={"folder": tmp_path / "jobs"})
    store, files = open_stores(config.jobs, "films")
    runner, waiters = LocalRunner(config, graph, cast(JobStore, OpenedOnUse(store)), files), []
    at_work: list[dict[str, int]] = []

    async def run(job_id: str, request: bytes | None, *, waiter: object, known_beat: int | None) -> Outcome | None:
        waiters.append(waiter)
        at_work.append(replica.record_autoscaling_stats())
        return await runner(job_id, request, waiter=Line(), known_beat=known_beat)

    models = {"wan26": graph.wan26, "wan22-gguf": graph.wan22, "face-swapper": graph.swapper}
    # The class without Serve's wrapper, which can only run in a replica.
    plain, _ = DEPLOYMENT.func_or_class.__bases__
    handles = {name: FakeHandle(model) for name, model in models.items()}
    replica = plain(config, FakeHandle(SimpleNamespace(run=run)), handles)
    with TestClient(await replica.__serve_build_asgi_app__()) as client:
        response = client.post("/wan2.6", json={"prompt": "x", "seed": 3})
        at_work.append(replica.record_autoscaling_stats())
    runner.close()
    assert response.headers["x-seed"] == "3"
    assert is_worth_a_line in logging.getLogger("ray.serve").filters
    assert names == ["films"]
    assert hosts == ["10.0.0.7"]
    assert waiters == ["stream-1"], "the Runner learns by it that the ingress is gone"
    assert at_work == [{"at_work": 1}, {"at_work": 0}], "Serve scales by it"
    assert (consumer.opened, consumer.closed) == ([1], 1)


def test_serve_never_refuses_what_the_ingress_counts_itself() -> None:
    assert DEPLOYMENT.name == "Ingress"
    assert DEPLOYMENT.max_ongoing_requests > make_config().ingress.max_concurrent_requests
