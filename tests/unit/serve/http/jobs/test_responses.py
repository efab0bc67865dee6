"""The answers about a job that has not ended."""

import json

import pytest
from starlette.responses import Response

from serve.http.jobs.record import Links, record_of
from serve.http.jobs.responses import accepted, record_response, see_result
from serve.http.negotiation import Preferences
from serve.jobs.store.record import Job, Progress, State
from tests.unit.serve.jobs.fake_jobs import make_job

SIGNED = Links(sign=lambda caller, path: f"signature={caller}:{path}", root="/films")


def accept(job: Job, preferences: Preferences) -> Response:
    return accepted(job, position=3, links=SIGNED, preferences=preferences)


def test_the_answer_with_a_record_says_where_the_job_is() -> None:
    job = make_job()
    response = accept(job, Preferences(respond_async=True, wait_s=5))
    assert response.status_code == 202
    assert response.headers["location"] == f"/films/jobs/{job.id}", "its caller sends its key, so it has no signature"
    assert response.headers["preference-applied"] == "respond-async, wait=5"
    assert json.loads(bytes(response.body)) == record_of(job, position=3, links=SIGNED)
    assert json.loads(bytes(response.body))["queue_position"] == 3


def test_a_preference_is_confirmed_only_where_there_was_one() -> None:
    response = accept(make_job(), Preferences(idempotency_key="a"))
    assert "preference-applied" not in response.headers


@pytest.mark.parametrize(("ignored", "header"), [((), None), (("sampler", "clip_skip"), "sampler, clip_skip")])
def test_fields_without_an_effect_are_named(ignored: tuple[str, ...], header: str | None) -> None:
    assert accept(make_job(ignored=ignored), Preferences()).headers.get("x-ignored-fields") == header


@pytest.mark.parametrize(("adjusted", "header"), [((), None), ((("width", 256), ("steps", 30)), "width=256; steps=30")])
def test_fields_with_another_effect_are_named(adjusted: tuple[tuple[str, int], ...], header: str | None) -> None:
    assert accept(make_job(adjusted=adjusted), Preferences()).headers.get("x-adjusted") == header


@pytest.mark.parametrize(("eta_s", "retry_after"), [(None, "5"), (0.2, "1"), (40.1, "11"), (4000.0, "30")])
def test_a_record_is_kept_by_no_cache_and_says_when_it_may_have_changed(eta_s: float | None, retry_after: str) -> None:
    job = make_job(state="running", progress=Progress(stage="denoising", eta_s=eta_s))
    response = record_response(job, position=None, links=SIGNED)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["retry-after"] == retry_after


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_nobody_is_asked_to_look_again_at_a_job_that_has_ended(state: State) -> None:
    response = record_response(make_job(state=state), position=None, links=SIGNED, status=202)
    assert response.status_code == 202
    assert "retry-after" not in response.headers


@pytest.mark.parametrize(("wait_s", "whole"), [(150, 150), (9.99, 9), (0.2, 1), (0, 1)])
def test_a_redirect_leads_to_the_result_with_its_signature_and_waits_there(wait_s: float, whole: int) -> None:
    job = make_job()
    response = see_result(job, links=SIGNED, wait_s=wait_s)
    location = f"/films/jobs/{job.id}/result?wait={whole}&signature=testclient:/jobs/{job.id}/result"
    assert (response.status_code, response.headers["location"]) == (303, location)
    assert (response.body, response.headers["cache-control"]) == (b"", "no-store")
