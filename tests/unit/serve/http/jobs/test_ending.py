"""How callers cancel and delete jobs."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from serve.jobs.store.record import Progress
from tests.unit.serve.http.job_service import RESULT, slug
from tests.unit.serve.jobs.fake_jobs import FakeJobs, make_job


async def test_cancelling_deletes_nothing_however_often_it_is_asked_for(jobs: FakeJobs, client: TestClient) -> None:
    running = jobs.add(make_job(state="running", progress=Progress(stage="denoising")))
    for _ in range(2):
        response = client.post(f"/jobs/{running.id}/cancel")
        assert (response.status_code, response.json()["cancel_requested"]) == (202, True)
    await jobs.change(running.id, state="cancelled")
    queued, done = jobs.add(make_job()), jobs.add(make_job())
    await jobs.succeed(done.id, RESULT)
    before = client.get(f"/jobs/{done.id}").json()
    first = client.post(f"/jobs/{queued.id}/cancel")
    assert (first.status_code, first.json()["state"]) == (202, "cancelled")
    for job, state in ((running, "cancelled"), (queued, "cancelled"), (done, "succeeded")):
        response = client.post(f"/jobs/{job.id}/cancel")
        assert (response.status_code, response.json()["state"]) == (200, state)
        assert response.json() == client.get(f"/jobs/{job.id}").json()
    assert client.get(f"/jobs/{done.id}").json() == before
    assert client.get(f"/jobs/{done.id}/result").content == RESULT
    client.delete(f"/jobs/{done.id}")
    gone, unknown = client.post(f"/jobs/{done.id}/cancel"), client.post(f"/jobs/{'0' * 32}/cancel")
    assert [(answer.status_code, slug(answer)) for answer in (gone, unknown)] == [(410, "gone"), (404, "not-found")]


@pytest.mark.parametrize("gone", [False, True])
async def test_a_job_that_ends_while_it_is_to_be_cancelled_keeps_its_result(
    jobs: FakeJobs, client: TestClient, monkeypatch: pytest.MonkeyPatch, gone: bool
) -> None:
    job = jobs.add(make_job(state="running"))

    async def too_late(job_id: str, caller: str) -> Any:
        ended = await jobs.succeed(job_id, RESULT)
        if not gone:
            return ended
        await jobs.delete(job_id, caller)
        return None

    monkeypatch.setattr(jobs, "cancel", too_late)
    response = client.post(f"/jobs/{job.id}/cancel")
    if gone:
        assert (response.status_code, slug(response)) == (410, "gone")
        return
    assert (response.status_code, response.json()["state"]) == (200, "succeeded")
    assert client.get(f"/jobs/{job.id}/result").content == RESULT


async def test_delete_cancels_an_active_job_and_then_deletes_it(jobs: FakeJobs, client: TestClient) -> None:
    running = jobs.add(make_job(state="running", progress=Progress(stage="denoising")))
    first = client.delete(f"/jobs/{running.id}")
    assert (first.status_code, first.json()["state"], first.json()["cancel_requested"]) == (202, "running", True)
    assert client.delete(f"/jobs/{running.id}").status_code == 202
    await jobs.change(running.id, state="cancelled")
    assert client.delete(f"/jobs/{running.id}").status_code == 204
    gone = client.get(f"/jobs/{running.id}")
    assert (gone.status_code, slug(gone)) == (410, "gone")
    assert client.delete(f"/jobs/{running.id}").status_code == 204  # repeating it changes nothing


async def test_delete_cancels_a_queued_job_at_once_and_keeps_its_record(jobs: FakeJobs, client: TestClient) -> None:
    queued = jobs.add(make_job())
    response = client.delete(f"/jobs/{queued.id}")
    assert (response.status_code, response.json()["state"]) == (202, "cancelled")
    assert client.get(f"/jobs/{queued.id}").json()["state"] == "cancelled"


async def test_deleting_removes_the_files(jobs: FakeJobs, client: TestClient) -> None:
    job = jobs.add(make_job())
    await jobs.succeed(job.id, RESULT)
    response = client.delete(f"/jobs/{job.id}")
    assert (response.status_code, response.content) == (204, b"")
    assert jobs.files.content == {}
    assert client.get(f"/jobs/{job.id}/result").status_code == 410


async def test_a_job_that_ends_while_it_is_to_be_cancelled_is_deleted(
    jobs: FakeJobs, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.add(make_job(state="running"))

    async def too_late(job_id: str, _: str) -> Any:
        return await jobs.succeed(job_id, RESULT)

    monkeypatch.setattr(jobs, "cancel", too_late)
    assert client.delete(f"/jobs/{job.id}").status_code == 204
    assert (jobs.jobs, jobs.files.content) == ({}, {})
