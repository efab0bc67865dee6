"""The record of a job as callers get it."""

import pytest
from starlette.testclient import TestClient

from serve.http.jobs.record import Links, field_headers, record_of, retry_after_s
from serve.jobs.store.record import Delivery, Progress, State
from tests.unit.serve.http.job_service import RESULT
from tests.unit.serve.jobs.fake_jobs import NOW, FakeJobs, make_job


def test_a_record_says_everything_that_is_known_of_a_job(jobs: FakeJobs, client: TestClient) -> None:
    jobs.add(make_job(created_at=NOW - 5))
    job = jobs.add(make_job())
    response = client.get(f"/jobs/{job.id}")
    assert response.status_code == 200
    assert response.json() == {
        "id": job.id,
        "model": "wan2.6",
        "state": "queued",
        "stage": "queued",
        "detail": None,
        "step": 0,
        "steps": 0,
        "percent": 0,
        "queue_position": 1,
        "eta_seconds": None,
        "seed": 7,
        "ignored_fields": [],
        "adjusted_fields": {},
        "attempts": 0,
        "cancel_requested": False,
        "created_at": "2026-09-21T14:13:20.000Z",
        "started_at": None,
        "finished_at": None,
        "expires_at": "2100-01-01T00:00:00.000Z",
        "request_id": "the-request",
        "links": {
            "self": f"/jobs/{job.id}",
            "events": f"/jobs/{job.id}/events",
            "result": f"/jobs/{job.id}/result",
            "preview": None,
        },
        "error": None,
        "webhook": None,
    }
    assert response.headers["cache-control"] == "no-store"
    assert int(response.headers["retry-after"]) >= 1


async def test_a_record_follows_the_job_to_its_end(jobs: FakeJobs, client: TestClient) -> None:
    job = jobs.add(make_job())
    await jobs.step(job.id, stage="decoding", step=3, steps=8, percent=61.26, eta_s=12.34, preview=True)
    running = client.get(f"/jobs/{job.id}").json()
    assert (running["state"], running["stage"], running["percent"], running["eta_seconds"]) == (
        "running",
        "decoding",
        61.3,
        12.3,
    )
    assert (running["step"], running["steps"], running["queue_position"]) == (3, 8, None)
    assert client.get(running["links"]["preview"]).status_code == 404  # the file is gone, or is not there yet
    await jobs.succeed(job.id, RESULT)
    done = client.get(f"/jobs/{job.id}")
    record = done.json()
    assert (record["state"], record["percent"], record["eta_seconds"]) == ("succeeded", 100, None)
    assert record["finished_at"] == "2026-09-21T14:13:29.000Z"
    assert "retry-after" not in done.headers


def test_a_webhook_is_shown_without_what_may_be_secret_in_its_url(jobs: FakeJobs, client: TestClient) -> None:
    hook = Delivery(url="https://user:pass@hooks.test/done?token=secret", id="msg_1", attempts=2, next_at=NOW, error="503")
    job = jobs.add(make_job(webhook=hook))
    response = client.get(f"/jobs/{job.id}")
    assert response.json()["webhook"] == {
        "url": "https://hooks.test/done",
        "id": "msg_1",
        "state": "pending",
        "attempts": 2,
        "next_at": "2026-09-21T14:13:20.000Z",
        "error": "503",
    }


@pytest.mark.parametrize(
    ("state", "percent", "eta_s", "shown"),
    [
        ("running", 61.26, 12.34, (61.3, 12.3)),
        ("running", 0, 0.04, (0, 0)),
        ("running", 50, None, (50, None)),
        ("succeeded", 97, 3, (100, None)),
        ("failed", 61.26, 3, (61.3, None)),
        ("cancelled", 0, 3, (0, None)),
    ],
)
def test_how_far_a_job_is_is_rounded_and_nothing_is_left_of_one_that_has_ended(
    state: State, percent: float, eta_s: float | None, shown: tuple[float, float | None]
) -> None:
    job = make_job(state=state, progress=Progress(stage="denoising", percent=percent, eta_s=eta_s))
    record = record_of(job, position=4, links=Links())
    assert (record["percent"], record["eta_seconds"], record["queue_position"]) == (*shown, None)


@pytest.mark.parametrize(
    ("state", "preview", "shown"), [("running", True, True), ("running", False, False), ("succeeded", True, False)]
)
def test_a_preview_is_linked_while_there_is_one(state: State, preview: bool, shown: bool) -> None:
    job = make_job(state=state, progress=Progress(stage="decoding", preview=preview))
    link = record_of(job, position=None, links=Links())["links"]["preview"]
    assert link == (f"/jobs/{job.id}/preview" if shown else None)


@pytest.mark.parametrize(
    ("eta_s", "seconds"), [(None, 5), (0, 1), (0.1, 1), (4, 1), (4.1, 2), (60, 15), (120, 30), (10**6, 30), (-3, 1)]
)
def test_a_record_is_asked_for_four_times_until_the_end_and_at_least_every_half_minute(
    eta_s: float | None, seconds: int
) -> None:
    assert retry_after_s(make_job(progress=Progress(eta_s=eta_s))) == seconds


def test_every_link_is_signed_for_its_own_path_below_the_prefix() -> None:
    job = make_job(caller="anna")
    links = Links(sign=lambda caller, path: f"signature={caller}{path}", root="/films")
    path = f"/jobs/{job.id}"
    assert links.plain(job) == f"/films{path}"
    assert links.of(job) == f"/films{path}?signature=anna{path}"
    assert links.of(job, "/result", "wait=5") == f"/films{path}/result?wait=5&signature=anna{path}/result"
    assert Links().of(job, "/result", "wait=5") == f"{path}/result?wait=5"
    linked = record_of(job, position=None, links=links)["links"]
    assert linked["events"] == f"/films{path}/events?signature=anna{path}/events"


def test_times_are_in_utc_to_the_millisecond() -> None:
    job = make_job(started_at=NOW + 0.0004, finished_at=NOW + 1.9996, expires_at=NOW + 0.5)
    record = record_of(job, position=None, links=Links())
    times = [record[name] for name in ("created_at", "started_at", "finished_at", "expires_at")]
    assert [text.removeprefix("2026-09-21T14:13:2") for text in times] == ["0.000Z", "0.000Z", "1.999Z", "0.500Z"]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.test/done", "https://hooks.test/done"),
        ("https://hooks.test:8443", "https://hooks.test:8443"),
        ("http://a%40b:c@hooks.test/x?key=1#part", "http://hooks.test/x"),
        ("https://user@[::1]:9/x", "https://[::1]:9/x"),
    ],
)
def test_no_secret_of_a_webhook_is_shown(url: str, shown: str) -> None:
    record = record_of(make_job(webhook=Delivery(url=url, id="msg_1")), position=None, links=Links())
    assert record["webhook"] == {
        "url": shown,
        "id": "msg_1",
        "state": "pending",
        "attempts": 0,
        "next_at": None,
        "error": None,
    }


def test_fields_without_effect_are_in_the_record_and_in_a_header() -> None:
    job = make_job(ignored=("sampler", "size"))
    assert record_of(job, position=None, links=Links())["ignored_fields"] == ["sampler", "size"]
    assert field_headers(job) == {"X-Ignored-Fields": "sampler, size"}
    assert field_headers(make_job()) == {}
