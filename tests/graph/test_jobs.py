"""Jobs on a real Ray: processes are killed while they run, and nothing is lost or done twice."""

import json
import os
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from serve.http.examples import payload
from tests.graph.conftest import Service, wait_until
from tests.graph.orders import order

ASYNC = {"Prefer": "respond-async", "Accept": "video/mp4"}
JOBS = 4
WORKERS = ("Runner", "Wan26", "FaceSwapper")
"""The deployments that work on jobs."""


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


def check_idle(service: Service, name: str, job_id: str, *, kind: str, most: int) -> None:
    """Assert that nothing of a stopped job is left, and that its model made at most ``most``.

    ``kind`` is what it made: denoise steps or chunks, as the journal has them.
    """
    # Ray knows of calls a second late, so that one may not be among those that run.
    wait_until(lambda: len(service.journal.entries(name, "end")) == len(service.journal.entries(name, "request")))
    wait_until(lambda: not running_calls(service))
    done = len(service.journal.entries(name, kind))
    assert done <= most, f"{done} of kind {kind}, where at most {most} are one more than when it was stopped"
    assert len(service.journal.entries(name, "request")) <= 1
    assert len(service.journal.entries(name, kind)) == done
    folder = Path(service.config["applications"][1]["args"]["jobs"]["folder"], "files")
    wait_until(lambda: not list(folder.glob(f"*/{job_id}*")))


def count_threads(service: Service) -> int:
    """Return the number of threads of the replicas that work on jobs."""
    pids = {pid for name in WORKERS for pid in service.replicas("fake", name).values()}
    return sum(psutil.Process(pid).num_threads() for pid in pids)


def running_calls(service: Service) -> list[str]:
    """Return the calls that replicas of the fake application work on."""
    from ray.util.state import list_tasks

    tasks = list_tasks(filters=[("state", "=", "RUNNING")], detail=True, limit=1000, raise_on_missing_output=False)
    actors = {actor for name in WORKERS for actor in service.replicas("fake", name)}
    return [task.name for task in tasks if task.actor_id in actors and "handle_request" in task.name]


STOPS = {
    "denoising": ("wan2.6", "step", {"step_s": 0.3}),
    "decoding": ("wan2.6", "chunk", {"step_s": 0.01, "chunk_s": 0.4}),
    "swapping": ("wan2.6-i2v-faceswap", "chunk", {"step_s": 0.01, "chunk_s": 0.4}),
}
"""A stage -> the endpoint, what the journal has of it, and how slow the fake engine is."""


@pytest.mark.parametrize("stage", STOPS)
def test_a_job_that_is_cancelled_stops_within_one_step_and_leaves_nothing(
    service: Service, http: httpx.Client, stage: str
) -> None:
    endpoint, kind, pace = STOPS[stage]
    name = f"jobs-cancelled-{stage}"
    fields = {**order(name, **pace), "steps": 60 if kind == "step" else 2, "length": 81, "seed": 1}
    job = http.post(f"{service.fake}/{endpoint}", json=fields, headers=ASYNC).json()["id"]
    wait_until(lambda: http.get(f"{service.fake}/jobs/{job}").json()["stage"] == stage)
    assert http.delete(f"{service.fake}/jobs/{job}").status_code == 202
    seen = len(service.journal.entries(name, kind))
    wait_until(lambda: http.get(f"{service.fake}/jobs/{job}").json()["state"] == "cancelled")
    # It is noticed at the next beat, 0.25 s later, and the step that is under way then is the last.
    check_idle(service, name, job, kind=kind, most=seen + 2)


def test_cancelled_jobs_leave_no_threads(service: Service, http: httpx.Client) -> None:
    """Pools of threads fill up with the first jobs; a thread that each job left would go on."""
    counts = []
    for number in range(12):
        name = f"jobs-threads-{number}"
        fields = {**order(name, step_s=0.01, chunk_s=0.2), "steps": 2, "length": 81, "seed": 1}
        job = http.post(f"{service.fake}/wan2.6-i2v-faceswap", json=fields, headers=ASYNC).json()["id"]
        wait_until(partial(service.journal.entries, name, "chunk"))
        assert http.delete(f"{service.fake}/jobs/{job}").status_code == 202
        wait_until(lambda: not running_calls(service))
        counts.append(count_threads(service))
    wait_until(lambda: count_threads(service) <= counts[5] + 3)


def test_a_queued_job_that_is_cancelled_never_begins(service: Service, http: httpx.Client) -> None:
    slots = 4
    names = [f"jobs-queued-{number}" for number in range(slots + 1)]
    ids = [
        http.post(f"{service.fake}/wan2.6", json={**order(name, step_s=0.2), "steps": 30}, headers=ASYNC).json()["id"]
        for name in names
    ]
    wait_until(lambda: service.journal.entries(names[0], "step"))
    assert http.get(f"{service.fake}/jobs/{ids[-1]}").json()["state"] == "queued"
    for job_id in reversed(ids):
        assert http.delete(f"{service.fake}/jobs/{job_id}").status_code == 202
    last = http.get(f"{service.fake}/jobs/{ids[-1]}").json()
    assert last["state"] == "cancelled"
    for name, job_id in zip(names[1:], ids[1:], strict=True):
        check_idle(service, name, job_id, kind="request", most=0)


def test_a_caller_that_hangs_up_stops_the_model_and_leaves_nothing(service: Service, http: httpx.Client) -> None:
    name = "jobs-hung-up"
    fields = {**order(name, step_s=0.3), "steps": 60}
    url, content = urlsplit(f"{service.fake}/wan2.6"), json.dumps(fields).encode()
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((url.hostname, url.port), timeout=60) as caller:
        caller.sendall(head.encode() + content)
        wait_until(lambda: service.journal.entries(name, "step"))
        running = {"limit": "1", "state": "running"}
        (job,) = wait_until(lambda: http.get(f"{service.fake}/jobs", params=running).json()["jobs"])
        seen = len(service.journal.entries(name, "step"))
    wait_until(lambda: http.get(f"{service.fake}/jobs/{job['id']}").json()["state"] == "cancelled")
    check_idle(service, name, job["id"], kind="step", most=seen + 2)


def test_a_plain_request_has_a_record_that_tells_its_progress(service: Service, http: httpx.Client) -> None:
    assert http.post(f"{service.fake}/wan2.6", json=body("jobs-plain", 3)).status_code == 200
    (record,) = http.get(f"{service.fake}/jobs", params={"limit": 1}).json()["jobs"]
    assert (record["state"], record["percent"], record["seed"]) == ("succeeded", 100, 3)
    gone = http.get(f"{service.fake}/jobs/{record['id']}/result")
    assert gone.status_code == 410


def test_every_step_and_chunk_of_a_video_is_an_event(service: Service, http: httpx.Client) -> None:
    """The demo's own model makes 4 steps and then 13 frames: 1 and three times 4."""
    body = {**payload("wan2.6"), "steps": 4, "length": 13}
    job = http.post(f"{service.url}/wan2.6", json=body, headers=ASYNC).json()["id"]
    with http.stream("GET", f"{service.url}/jobs/{job}/events") as stream:
        lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
    events = [json.loads(line) for line in lines]
    assert (events[-1]["state"], events[-1]["percent"], events[-1]["attempts"]) == ("succeeded", 100, 1)
    percents = [event["percent"] for event in events]
    assert percents == sorted(percents)
    denoising = [(event["step"], event["steps"]) for event in events if event["stage"] == "denoising"]
    assert denoising == [(step, 4) for step in range(5)]  # 0 as the first one begins
    decoding = [event["step"] for event in events if event["stage"] == "decoding"]
    assert list(dict.fromkeys(frames for frames in decoding if frames)) == [1, 5, 9, 13]
    stages = list(dict.fromkeys(event["stage"] for event in events))
    assert [stage for stage in stages if stage not in ("starting", "encoding")] == [
        "queued",
        "denoising",
        "decoding",
        "writing",
    ]
    measured = [event for event in events if event["stage"] in ("denoising", "decoding") and event["step"]]
    assert all(event["eta_seconds"] is not None for event in measured)
