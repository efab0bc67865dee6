import asyncio

import httpx
import pytest

from serve.http.admission import Admission
from serve.http.problems import Problem
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import HeldVideoModel, make_service


def test_requests_are_admitted_up_to_the_limit() -> None:
    admission = Admission(2)
    with admission.admit(), admission.admit():
        with pytest.raises(Problem) as refused, admission.admit():
            pass
        assert (refused.value.status, refused.value.slug) == (503, "unavailable")
        assert refused.value.headers == {"Retry-After": "10"}
        assert "too many requests" in refused.value.detail
    with admission.admit(), admission.admit():
        pass  # both places are free again


def test_a_request_that_fails_gives_its_place_back() -> None:
    admission = Admission(1)
    with pytest.raises(ValueError, match="failed"), admission.admit():
        raise ValueError("failed")
    with admission.admit():
        pass


def test_a_check_takes_no_place() -> None:
    admission = Admission(1)
    admission.check()
    admission.check()
    with admission.admit(), pytest.raises(Problem):
        admission.check()


def test_the_latest_duration_is_kept_for_each_model() -> None:
    admission = Admission(1)
    assert admission.last_duration("wan26", default=10) == 10
    admission.note_duration("wan26", 3)
    admission.note_duration("wan26", 42.5)
    assert admission.last_duration("wan26", default=10) == 42.5
    assert admission.last_duration("face-swapper", default=10) == 10


async def test_a_full_ingress_refuses_requests_and_is_not_ready() -> None:
    model = HeldVideoModel()
    graph = FakeGraph(wan26=model)
    app = make_service(graph, ingress={"max_concurrent_requests": 1})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        first = asyncio.ensure_future(client.post("/wan2.6", json={"prompt": "x"}, headers={"accept": "video/mp4"}))
        await model.begun.wait()
        second = await client.post("/image-faceswap", json={})
        assert (second.status_code, second.headers["retry-after"]) == (503, "10")
        assert second.json()["type"] == "urn:ryla:problem:unavailable"
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.get("/healthz")).status_code == 200
        model.let_go()
        assert (await first).headers["x-frames"] == "9"
        assert (await client.get("/readyz")).json()["ready"] is True
