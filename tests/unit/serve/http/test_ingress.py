import logging
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.http import ingress
from serve.http.access_log import is_worth_a_line
from tests.unit.serve.fake_graph import WINDOW, FakeConsumer, FakeGraph, FakeHandle
from tests.unit.serve.http.service import make_config

DEPLOYMENT: Any = ingress.Ingress
"""What Serve's decorators make of the class, which they declare to be the class itself."""


async def test_a_replica_builds_the_application_over_its_handles(monkeypatch: pytest.MonkeyPatch) -> None:
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
    models = {"wan26": graph.wan26, "wan22-gguf": graph.wan22, "face-swapper": graph.swapper}
    # The class without Serve's wrapper, which can only run in a replica.
    plain, _ = DEPLOYMENT.func_or_class.__bases__
    replica = plain(make_config(runner={"window": WINDOW + 3}), {name: FakeHandle(model) for name, model in models.items()})
    with TestClient(await replica.__serve_build_asgi_app__()) as client:
        response = client.post("/wan2.6", json={"prompt": "x", "seed": 3})
    assert response.headers["x-seed"] == "3"
    assert is_worth_a_line in logging.getLogger("ray.serve").filters
    assert names == ["films"]
    assert hosts == ["10.0.0.7"]
    assert consumer.opened == [WINDOW + 3]
    assert consumer.released == 3


def test_serve_never_refuses_what_the_ingress_counts_itself() -> None:
    assert DEPLOYMENT.name == "Ingress"
    assert DEPLOYMENT.max_ongoing_requests > make_config().ingress.max_concurrent_requests
