"""Requests that become jobs, over the whole service with its store and a Runner in this process."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import PIL.Image
import pytest

from serve.jobs.store.record import Progress
from tests.unit.serve.http.durable_service import ASYNC, BODY, LIMIT_S, MP4, Service, serving
from tests.unit.serve.http.service import VIDEO


def _events(text: str) -> list[dict[str, str]]:
    """Return the fields of each server-sent event."""
    return [
        dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        for block in text.strip().split("\n\n")
        if "event:" in block
    ]


def _records(text: str) -> list[dict[str, Any]]:
    """Return the record of each server-sent event."""
    return [json.loads(event["data"]) for event in _events(text)]


@pytest.fixture
async def service() -> AsyncIterator[Service]:
    async with serving() as running:
        yield running


async def test_a_job_is_accepted_at_once_and_its_result_is_that_of_a_plain_request(service: Service) -> None:
    accepted = await service.one.post("/wan2.6", json=BODY, headers={**ASYNC, **MP4})
    assert accepted.status_code == 202
    assert accepted.headers["preference-applied"] == "respond-async"
    record = accepted.json()
    assert accepted.headers["location"] == f"/jobs/{record['id']}"
    assert (record["state"], record["seed"], record["model"]) == ("queued", 5, "wan2.6")
    await service.model.begun.wait()
    early = await service.two.get(f"/jobs/{record['id']}/result")
    assert early.status_code == 409
    service.model.let_go()
    ended = await service.end(record["id"])
    assert (ended["state"], ended["percent"], ended["attempts"]) == ("succeeded", 100, 1)
    result = await service.two.get(f"/jobs/{record['id']}/result")
    plain = await service.one.post("/wan2.6", json=BODY, headers=MP4)
    assert result.content == plain.content
    for name in ("content-type", "x-model", "x-frames", "x-fps", "x-seed"):
        assert result.headers[name] == plain.headers[name]


async def test_what_is_wrong_is_said_before_a_job_is_accepted(service: Service) -> None:
    refused = await service.one.post("/wan2.6", json={"width": 17}, headers=ASYNC)
    assert refused.status_code == 422
    assert {error["pointer"] for error in refused.json()["errors"]} == {"#/prompt", "#/width"}
    assert (await service.one.get("/jobs")).json()["jobs"] == []


@pytest.mark.slow
async def test_a_wait_that_is_long_enough_gives_the_result_and_a_short_one_the_record(service: Service) -> None:
    short = await service.one.post("/wan2.6", json=BODY, headers={"Prefer": "wait=1"})
    assert short.status_code == 202
    assert short.headers["preference-applied"] == "wait=1"
    service.model.let_go()
    long = await service.one.post("/wan2.6", json=BODY, headers={"Prefer": "wait=60", **MP4})
    assert long.status_code == 200
    assert long.content[4:8] == b"ftyp"
    assert long.headers["preference-applied"] == "wait=60"


async def test_a_caller_with_a_key_may_leave_and_one_without_may_not(service: Service) -> None:
    kept = asyncio.ensure_future(service.one.post("/wan2.6", json=BODY, headers={"Idempotency-Key": "k-1"}))
    await service.model.begun.wait()
    kept.cancel()
    (record,) = (await service.two.get("/jobs")).json()["jobs"]
    service.model.let_go()
    assert (await service.end(record["id"]))["state"] == "succeeded"


@pytest.mark.slow
async def test_a_cancelled_job_stops_its_model_from_any_replica(service: Service) -> None:
    job = (await service.one.post("/wan2.6", json=BODY, headers=ASYNC)).json()
    await service.model.begun.wait()
    for _ in range(2):  # it is idempotent
        assert (await service.two.delete(f"/jobs/{job['id']}")).status_code == 202
    ended = await service.end(job["id"])
    assert ended["state"] == "cancelled"
    assert service.model.stopped


@pytest.mark.slow
async def test_a_queued_job_is_cancelled_at_once_and_never_begins() -> None:
    async with serving(jobs={"slots": {"wan26": 1}}) as service:
        await service.one.post("/wan2.6", json=BODY, headers=ASYNC)
        await service.model.begun.wait()
        waiting = (await service.one.post("/wan2.6", json=BODY, headers=ASYNC)).json()
        assert waiting["queue_position"] == 0
        cancelled = await service.two.delete(f"/jobs/{waiting['id']}")
        assert (cancelled.status_code, cancelled.json()["state"]) == (202, "cancelled")
        service.model.let_go()
        assert len(service.model.requests) == 1


async def test_events_come_from_a_replica_that_does_not_run_the_job(service: Service) -> None:
    job = (await service.one.post("/wan2.6", json=BODY, headers=ASYNC)).json()
    service.model.let_go()
    async with asyncio.timeout(LIMIT_S):
        text = (await service.two.get(f"/jobs/{job['id']}/events")).text
    events = _events(text)
    ids = [int(event["id"]) for event in events]
    assert ids == list(range(1, len(ids) + 1))
    assert [event["event"] for event in events] == ["progress"] * (len(events) - 1) + ["succeeded"]
    records = [json.loads(event["data"]) for event in events]
    percents = [record["percent"] for record in records]
    assert percents == sorted(percents)
    steps = [(record["step"], record["steps"]) for record in records if record["stage"] == "denoising"]
    assert steps == [(1, 2), (2, 2)]
    resumed = (await service.two.get(f"/jobs/{job['id']}/events", headers={"Last-Event-ID": str(ids[-2])})).text
    assert "event: succeeded" in resumed
    assert "event: progress" not in resumed


@pytest.mark.slow
async def test_a_preview_is_there_while_the_job_runs_and_gone_after(service: Service) -> None:
    service.model.let_go()
    service.model.third_chunk = asyncio.Event()
    job = (await service.one.post("/wan2.6", json=BODY, headers={**ASYNC, **MP4})).json()
    async with asyncio.timeout(LIMIT_S):
        grey = 0
        while grey < 15:  # the first chunk has a grey of 10, and the second one, which is the latest, of 20
            preview = await service.two.get(f"/jobs/{job['id']}/preview")
            if preview.status_code == 200:
                frame = np.asarray(PIL.Image.open(io.BytesIO(preview.content)))
                grey = int(frame.mean())
            await asyncio.sleep(0.02)
    assert (preview.headers["content-type"], preview.content[:3]) == ("image/jpeg", b"\xff\xd8\xff")
    assert preview.headers["x-provenance"] == "metadata"  # signed is only the result, and the watermark is off here
    assert (frame.shape, frame.min() >= 17, frame.max() <= 23) == ((48, 64, 3), True, True)
    running = (await service.two.get(f"/jobs/{job['id']}")).json()
    assert (running["state"], running["links"]["preview"]) == ("running", f"/jobs/{job['id']}/preview")
    service.model.third_chunk.set()
    ended = await service.end(job["id"])
    assert (ended["state"], ended["links"]["preview"]) == ("succeeded", None)
    assert (await service.two.get(f"/jobs/{job['id']}/preview")).status_code == 404
    events = _records((await service.two.get(f"/jobs/{job['id']}/events")).text)
    previews = [(record["stage"], record["links"]["preview"]) for record in events]
    assert ("decoding", f"/jobs/{job['id']}/preview") in previews
    assert previews[0][1] is None


@pytest.mark.slow
async def test_no_more_requests_a_minute_than_the_quota_are_admitted() -> None:
    async with serving(jobs={"requests_per_minute": 2}) as service:
        service.model.let_go()
        answers = [await service.one.post("/wan2.6", json=BODY) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert answers[0].headers["ratelimit-policy"] == '"requests";q=2;w=60'
        assert answers[0].headers["ratelimit"].startswith('"requests";r=1;t=')
        assert 1 <= int(answers[2].headers["retry-after"]) <= 60
    async with serving(jobs={"requests_per_minute": 60}) as service:
        wrong = ({"Prefer": "wait=x"}, {"Accept": "text/plain"}, {"Request-Timeout": "x"}, {"Idempotency-Key": ""})
        for number, headers in enumerate(wrong, 1):
            for path in ("/wan2.6", "/v1/videos"):
                answer = await service.one.post(path, json={}, headers=headers)
                assert answer.status_code in (406, 422), (path, headers)
                left = 60 - 2 * number + (path == "/wan2.6")
                assert answer.headers["ratelimit"].startswith(f'"requests";r={left};t='), (path, headers)


@pytest.mark.slow
async def test_no_more_jobs_wait_than_one_caller_may_have_and_the_refusal_says_when_there_is_room() -> None:
    async with serving(jobs={"slots": {"wan26": 1}, "max_queued_per_caller": 1}) as service:
        running = (await service.one.post("/wan2.6", json=BODY, headers=ASYNC)).json()
        await service.model.begun.wait()
        assert (await service.one.post("/wan2.6", json=BODY, headers=ASYNC)).status_code == 202
        # The model's own steps are stored a little later, and have other times.
        while (job := await service.store.get(running["id"])) and job.progress.step < VIDEO["steps"]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await service.store.progress(running["id"], 1, [Progress(stage="denoising", eta_s=77)])
        for headers in ({}, ASYNC):
            full = await service.two.post("/wan2.6", json=BODY, headers=headers)
            assert (full.status_code, full.headers["retry-after"]) == (429, "77")


@pytest.mark.slow
async def test_a_caller_who_keeps_too_much_makes_room_by_deleting_and_loses_nothing() -> None:
    async with serving(jobs={"max_kept_bytes_per_caller": 4000}) as service:
        service.model.let_go()
        done = await service.one.post("/wan2.6", json=BODY, headers={"Prefer": "wait=60"})
        assert len(done.content) > 700
        [job] = (await service.one.get("/jobs")).json()["jobs"]
        large = await service.two.post("/wan2.6", json={**BODY, "prompt": "x" * 4900}, headers=ASYNC)
        assert (large.status_code, large.json()["type"]) == (413, "urn:ryla:problem:body-too-large")
        assert "retry-after" not in large.headers
        full = await service.two.post("/wan2.6", json={**BODY, "prompt": "x" * 3300}, headers=ASYNC)
        assert (full.status_code, full.json()["type"]) == (429, "urn:ryla:problem:quota")
        assert f"the oldest expires at {job['expires_at'][:17]}" in full.json()["detail"]
        assert int(full.headers["retry-after"]) > 80_000
        assert (await service.two.post("/wan2.6", json={**BODY, "prompt": "x" * 3300})).status_code == 200
        assert (await service.one.get(f"/jobs/{job['id']}/result")).content == done.content
        assert (await service.two.delete(f"/jobs/{job['id']}")).status_code == 204
        assert (await service.two.post("/wan2.6", json={**BODY, "prompt": "x" * 3300}, headers=ASYNC)).status_code == 202


@pytest.mark.slow
async def test_a_listener_is_told_when_its_job_moves_up() -> None:
    async with serving(jobs={"slots": {"wan26": 1}}) as service:
        jobs = [(await service.one.post("/wan2.6", json=BODY, headers=ASYNC)).json() for _ in range(3)]
        await service.model.begun.wait()
        told: list[tuple[int | None, int | None]] = []
        async with asyncio.timeout(LIMIT_S):
            async for news in service.desk_two.follow(jobs[2]["id"], 0):
                told.append((news.id, news.position))
                if told[-1][1] == 1:
                    await service.one.delete(f"/jobs/{jobs[1]['id']}")
                elif told[-1][1] == 0:
                    service.model.let_go()
        assert told[:2] == [(1, 1), (None, 0)]
        assert [number for number, _ in told[2:]] == list(range(2, len(told)))
        assert {position for _, position in told[2:]} == {None}


@pytest.mark.slow
async def test_a_wait_is_no_longer_than_the_setting() -> None:
    async with serving(jobs={"max_wait_s": 1}) as service:
        short = await service.one.post("/wan2.6", json=BODY, headers={"Prefer": "wait=500"})
        assert (short.status_code, short.headers["preference-applied"]) == (202, "wait=1")


@pytest.mark.slow
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "k-1"}])
async def test_a_request_that_takes_long_is_led_to_its_result(headers: dict[str, str]) -> None:
    async with serving(jobs={"redirect_after_s": 0.05}) as service:
        led = await service.one.post("/wan2.6", json=BODY, headers={**MP4, **headers})
        assert led.status_code == 303
        assert led.headers["location"].endswith("/result?wait=1")
        again = await service.two.get(led.headers["location"])
        assert (again.status_code, again.headers["location"]) == (303, led.headers["location"])
        service.model.let_go()
        async with asyncio.timeout(LIMIT_S):
            result = await service.two.get(led.headers["location"], follow_redirects=True)
        assert (result.status_code, result.headers["content-type"]) == (200, "video/mp4")


@pytest.mark.slow
async def test_a_caller_that_leaves_before_it_is_led_on_cancels_its_request() -> None:
    async with serving(jobs={"redirect_after_s": LIMIT_S}) as service:
        call = asyncio.ensure_future(service.one.post("/wan2.6", json=BODY))
        await service.model.begun.wait()
        call.cancel()
        await asyncio.wait({call})
        (record,) = (await service.two.get("/jobs")).json()["jobs"]
        ended = await service.end(record["id"])
        assert (ended["state"], service.model.stopped) == ("cancelled", True)


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"max_listeners": 1}, {"max_listeners_per_caller": 1}])
async def test_no_more_connections_listen_than_the_settings_allow(limits: dict[str, int]) -> None:
    async with serving(jobs=limits) as service:
        job = (await service.one.post("/wan2.6", json=BODY, headers=ASYNC)).json()
        calls = [
            asyncio.ensure_future(service.one.get(f"/jobs/{job['id']}/result", params={"wait": LIMIT_S})) for _ in range(2)
        ]
        (refused,), (listening,) = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        assert refused.result().status_code == 503
        assert "retry-after" in refused.result().headers
        service.model.let_go()
        assert (await listening).status_code == 200
