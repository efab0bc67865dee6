import asyncio
import hashlib
import math
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from serve.http.callers.admission import Admission
from serve.http.examples import payload
from serve.problems import Problem
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import HeldVideoModel, make_service


def test_requests_are_admitted_up_to_the_limit() -> None:
    admission = Admission(2)
    with admission.admit("anna"), admission.admit("ben"):
        with pytest.raises(Problem) as refused, admission.admit("carl"):
            pass
        assert (refused.value.status, refused.value.slug) == (503, "unavailable")
        assert refused.value.headers == {"Retry-After": "5"}
        assert "too many requests" in refused.value.detail
    with admission.admit("anna"), admission.admit("ben"):
        pass  # both places are free again


def test_a_refusal_says_when_a_place_is_likely_to_be_free() -> None:
    now = 0.0
    admission = Admission(4, clock=lambda: now)
    with admission.admit("anna"):
        now += 60
    with ExitStack() as held:
        for caller in ("anna", "anna", "ben", "carl"):
            held.enter_context(admission.admit(caller))
        with pytest.raises(Problem) as full:
            admission.check("dora")
        assert full.value.headers == {"Retry-After": "15"}  # one of four that take 60 s each
        now += 60
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(admission.admit("anna"))
        with pytest.raises(Problem) as her_own:
            admission.check("anna")
        assert her_own.value.headers == {"Retry-After": "30"}


def test_requests_that_take_long_make_a_refusal_wait_longer_whatever_the_mean_is() -> None:
    """Accepting a job takes milliseconds, and making its video minutes."""
    now = 0.0
    admission = Admission(8, clock=lambda: now)
    for _ in range(20):
        with admission.admit("anna"):
            now += 0.01
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(admission.admit("anna"))
        waits = []
        for age_s in (0, 60, 600):
            now += age_s
            with pytest.raises(Problem) as refused:
                admission.check("anna")
            waits.append(refused.value.headers["Retry-After"])
    assert waits == ["1", "15", "165"]


def test_a_request_that_fails_tells_nothing_about_the_others() -> None:
    now = 0.0
    admission = Admission(1, clock=lambda: now)
    with admission.admit("anna"):
        now += 40
    with pytest.raises(ValueError, match="wrong"), admission.admit("anna"):
        raise ValueError("wrong")
    with admission.admit("anna"), pytest.raises(Problem) as full:
        admission.check("ben")
    assert full.value.headers == {"Retry-After": "40"}


def test_a_request_that_fails_gives_its_place_back() -> None:
    admission = Admission(1)
    with pytest.raises(ValueError, match="failed"), admission.admit("carl"):
        raise ValueError("failed")
    with admission.admit("carl"):
        pass


def test_a_check_takes_no_place() -> None:
    admission = Admission(1)
    admission.check("anna")
    admission.check("anna")
    with admission.admit("anna"), pytest.raises(Problem):
        admission.check("anna")


@pytest.mark.parametrize(("limit", "share"), [(1, 1), (2, 1), (5, 2), (8, 4)])
def test_one_caller_has_at_most_half_of_the_places(limit: int, share: int) -> None:
    admission = Admission(limit)
    with ExitStack() as held:
        for _ in range(share):
            held.enter_context(admission.admit("anna"))
        with pytest.raises(Problem) as refused:
            admission.check("anna")
        own = limit > 1
        assert (refused.value.status, refused.value.slug) == ((429, "quota") if own else (503, "unavailable"))
        assert refused.value.headers == {"Retry-After": str(math.ceil(10 / share))}
        if own:
            assert "of yours" in refused.value.detail
            held.enter_context(admission.admit("ben"))
    with admission.admit("anna"):
        pass  # her places are free again


async def test_a_caller_who_takes_all_places_leaves_room_for_others(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("".join(f"{name} {hashlib.sha256(name.encode()).hexdigest()}\n" for name in ("anna", "ben")))
    anna, ben = ({"authorization": f"Bearer {name}"} for name in ("anna", "ben"))
    model = HeldVideoModel()
    app = make_service(FakeGraph(wan26=model), ingress={"max_concurrent_requests": 2, "api_keys": keys})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        first = asyncio.ensure_future(client.post("/wan2.6", json={"prompt": "x"}, headers=anna))
        await model.begun.wait()
        assert (await client.post("/wan2.6", json={"prompt": "x"}, headers=anna)).status_code == 429
        assert (await client.post("/image-faceswap", json=payload("image-faceswap"), headers=ben)).status_code == 200
        model.let_go()
        assert (await first).status_code == 200


async def test_a_full_ingress_refuses_requests_and_stays_ready() -> None:
    model = HeldVideoModel()
    graph = FakeGraph(wan26=model)
    app = make_service(graph, ingress={"max_concurrent_requests": 1})
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        first = asyncio.ensure_future(client.post("/wan2.6", json={"prompt": "x"}, headers={"accept": "video/mp4"}))
        await model.begun.wait()
        second = await client.post("/image-faceswap", json={})
        assert (second.status_code, second.headers["retry-after"]) == (503, "10")
        assert second.json()["type"] == "urn:ryla:problem:unavailable"
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/healthz")).status_code == 200
        model.let_go()
        assert (await first).headers["x-frames"] == "9"
