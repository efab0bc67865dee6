"""Requests that are sent again under the same Idempotency-Key."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from serve.jobs.desk import Jobs
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.durable_service import ASYNC, BODY, LIMIT_S, MP4, Service, serving
from tests.unit.serve.http.service import HeldVideoModel, make_config, make_service_over
from tests.unit.serve.local_jobs import LocalDesk


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as running:
        yield running


@pytest.mark.slow
async def test_the_same_key_is_the_same_job_however_often_it_is_sent(service: Service) -> None:
    key = {"Idempotency-Key": "k-1", **MP4}
    clients = (service.one, service.two) * 25
    calls = [asyncio.ensure_future(client.post("/wan2.6", json=BODY, headers=key)) for client in clients]
    async with asyncio.timeout(LIMIT_S):
        await service.model.begun.wait()
        service.model.let_go()
        answers = await asyncio.gather(*calls)
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(service.model.requests) == 1
    assert len((await service.one.get("/jobs")).json()["jobs"]) == 1
    for client in (service.one, service.two):
        other = await client.post("/wan2.6", json={**BODY, "prompt": "a blue circle"}, headers=key)
        assert other.status_code == 422
        assert other.json()["errors"][0]["header"] == "Idempotency-Key"


@pytest.mark.slow
async def test_a_request_that_finds_its_job_ends_at_its_own_time_limit(service: Service) -> None:
    key = {"Idempotency-Key": "k-1", **MP4}
    first = asyncio.ensure_future(service.one.post("/wan2.6", json=BODY, headers=key))
    await service.model.begun.wait()
    async with asyncio.timeout(15):  # much less than what the service adds for a job of its own
        second = await service.two.post("/wan2.6", json=BODY, headers={**key, "Request-Timeout": "1"})
    assert (second.status_code, second.json()["type"]) == (504, "urn:ryla:problem:timeout")
    service.model.let_go()
    assert (await first).status_code == 200


@pytest.mark.slow
async def test_a_request_is_the_same_one_after_a_change_of_the_defaults() -> None:
    """Clients send requests again while a new configuration is rolled out."""
    model = HeldVideoModel()
    model.let_go()
    graph = FakeGraph(wan26=model)
    before, after = (make_config(wan26_defaults={"steps": steps, "num_frames": 4 * steps + 1}) for steps in (2, 3))
    desk = LocalDesk(before, graph)
    await desk.open()
    try:
        answers = []
        for config in (before, after):
            app = make_service_over(config, Jobs(desk, desk.store, desk.files), graph)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
                for path in ("/wan2.6", "/v1/videos"):
                    headers = {**ASYNC, "Idempotency-Key": path}
                    answers.append((await client.post(path, json=BODY, headers=headers)).json()["id"])
        assert answers[:2] == answers[2:]
    finally:
        await desk.close()


OTHER = "https://hooks.example.org/other"
HOOKED = {"hosts": ["hooks.example.org"], "secret_file": "/keys"}


@pytest.mark.slow
async def test_another_request_under_a_key_is_refused_and_told_what_differs() -> None:
    hook = {"Webhook-Url": "https://hooks.example.org/done"}
    first = {**ASYNC, **MP4, **hook, "Idempotency-Key": "k-1"}
    async with serving(jobs={"webhooks": HOOKED}) as service:
        job = (await service.one.post("/wan2.6", json=BODY, headers=first)).json()
        again = await service.two.post("/wan2.6", json=BODY, headers=first)
        assert (again.status_code, again.json()["id"]) == (202, job["id"])
        for path, body, headers, said in (
            ("/wan2.6", BODY, {**first, "Accept": "image/webp"}, "another `Accept`"),
            ("/wan2.6", BODY, {**first, "Webhook-Url": OTHER}, "another `Webhook-Url`"),
            ("/wan2.6", BODY, {name: first[name] for name in first if name not in hook}, "another `Webhook-Url`"),
            ("/wan2.6", {**BODY, "seed": 6}, first, "another body"),
            ("/v1/videos", BODY, first, "another path"),
        ):
            refused = await service.two.post(path, json=body, headers=headers)
            assert (refused.status_code, said in refused.text, "send a new key" in refused.text) == (422, True, True)
        made = {**first, "Idempotency-Key": "k-2"}
        video = (await service.one.post("/v1/videos", json=BODY, headers=made)).json()
        again = await service.two.post("/v1/videos", json=BODY, headers=made)
        assert (again.status_code, again.json()["id"]) == (200, video["id"])
        refused = await service.two.post("/wan2.6", json=BODY, headers=made)
        assert (refused.status_code, "another path" in refused.text) == (422, True)
        assert {record["id"] for record in (await service.one.get("/jobs")).json()["jobs"]} == {job["id"], video["id"]}


@pytest.mark.slow
async def test_the_key_of_a_cancelled_job_stays_taken_and_the_answer_says_so(service: Service) -> None:
    key = {"Idempotency-Key": "k-1"}
    job = (await service.one.post("/wan2.6", json=BODY, headers={**ASYNC, **key})).json()
    await service.model.begun.wait()
    assert (await service.two.post(f"/jobs/{job['id']}/cancel")).status_code == 202
    assert (await service.end(job["id"]))["state"] == "cancelled"
    for _ in range(2):
        answer = await service.one.post("/wan2.6", json=BODY, headers=key)
        assert (answer.status_code, "with a new `Idempotency-Key`" in answer.json()["detail"]) == (409, True)
    service.model.let_go()
    assert (await service.one.post("/wan2.6", json=BODY, headers={"Idempotency-Key": "k-2"})).status_code == 200


async def test_a_failed_job_frees_its_key(service: Service) -> None:
    key = {"Idempotency-Key": "k-1"}
    service.model.let_go()
    service.model.errors.append(ValueError("a fault"))
    assert (await service.one.post("/wan2.6", json=BODY, headers=key)).status_code == 500
    assert (await service.one.post("/wan2.6", json=BODY, headers=key)).status_code == 200
