"""Jobs on a real Ray: processes are killed while they run, and nothing is lost or done twice."""

import os
import signal
from typing import Any

import httpx
import pytest

from tests.graph.conftest import Service, wait_until
from tests.graph.test_stream import order

ASYNC = {"Prefer": "respond-async", "Accept": "video/mp4"}
JOBS = 4


def body(name: str, seed: int, **fields: Any) -> dict[str, Any]:
    """Return a request for a video of 5 frames in 6 slow steps."""
    return {**order(name, step_s=0.2), "steps": 6, "length": 5, "seed": seed, **fields}


def submit(service: Service, http: httpx.Client, name: str) -> list[str]:
    """Send jobs, and return their ids."""
    answers = [http.post(f"{service.fake}/wan2.6", json=body(name, seed), headers=ASYNC) for seed in range(JOBS)]
    assert [answer.status_code for answer in answers] == [202] * JOBS, [answer.text for answer in answers]
    return [answer.json()["id"] for answer in answers]


def finish(service: Service, http: httpx.Client, job_id: str) -> tuple[dict[str, Any], bytes]:
    """Return the record and the result of a job, which must succeed."""

    def ended() -> dict[str, Any] | None:
        try:
            response = http.get(f"{service.fake}/jobs/{job_id}")
        except httpx.TransportError:
            return None
        record: dict[str, Any] = response.json() if response.status_code == 200 else {}
        return record if record.get("state") in ("succeeded", "failed", "cancelled") else None

    record: dict[str, Any] = wait_until(ended, 120)
    assert record["state"] == "succeeded", record
    return record, http.get(f"{service.fake}/jobs/{job_id}/result").content


@pytest.mark.parametrize("deployment", ["Runner", "Ingress", "Wan26"])
def test_every_job_has_its_one_result_when_a_process_is_killed(service: Service, http: httpx.Client, deployment: str) -> None:
    name = f"jobs-{deployment}"
    undisturbed = http.post(f"{service.fake}/wan2.6", json=body("calm", 0), headers={"Accept": "video/mp4"})
    assert undisturbed.status_code == 200
    ids = submit(service, http, name)
    wait_until(lambda: service.journal.entries(name, "step"))
    for pid in service.replicas("fake", deployment).values():
        os.kill(pid, signal.SIGKILL)
    records, results = zip(*(finish(service, http, job_id) for job_id in ids), strict=True)
    assert set(results) == {undisturbed.content}  # the fake engine's frames do not depend on the seed
    assert [record["seed"] for record in records] == list(range(JOBS))
    attempts = [record["attempts"] for record in records]
    if deployment == "Runner":
        assert max(attempts) > 1
    if deployment == "Ingress":
        assert attempts == [1] * JOBS
    listed = http.get(f"{service.fake}/jobs", params={"limit": 100}).json()["jobs"]
    assert sorted(job["id"] for job in listed if job["id"] in ids) == sorted(ids)


def test_a_cancelled_job_stops_the_model_within_one_step(service: Service, http: httpx.Client) -> None:
    name = "jobs-cancelled"
    job = http.post(f"{service.fake}/wan2.6", json={**body(name, 1), "steps": 60}, headers=ASYNC).json()
    wait_until(lambda: service.journal.entries(name, "step"))
    assert http.delete(f"{service.fake}/jobs/{job['id']}").status_code == 202
    wait_until(lambda: http.get(f"{service.fake}/jobs/{job['id']}").json()["state"] == "cancelled")
    steps = len(service.journal.entries(name, "step"))
    again = http.post(f"{service.fake}/wan2.6", json=body("jobs-next", 2), headers={"Accept": "video/mp4"})
    assert again.status_code == 200
    assert len(service.journal.entries(name, "step")) <= steps + 1


def test_a_plain_request_has_a_record_that_tells_its_progress(service: Service, http: httpx.Client) -> None:
    assert http.post(f"{service.fake}/wan2.6", json=body("jobs-plain", 3)).status_code == 200
    (record,) = http.get(f"{service.fake}/jobs", params={"limit": 1}).json()["jobs"]
    assert (record["state"], record["percent"], record["seed"]) == ("succeeded", 100, 3)
    gone = http.get(f"{service.fake}/jobs/{record['id']}/result")
    assert gone.status_code == 410
