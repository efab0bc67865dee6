"""The OpenAPI operations of jobs against what the service sends and takes."""

from dataclasses import replace
from typing import Any

import jsonschema
import pytest

from serve.http.jobs.handlers import DEFAULT_PAGE, MAX_PAGE
from serve.http.jobs.operations import (
    EXAMPLE,
    JOB_SCHEMA,
    accepted_response,
    job_operations,
    preference_parameters,
    problem_response,
)
from serve.http.jobs.record import Links, record_of
from serve.http.jobs.responses import accepted
from serve.http.negotiation import Preferences
from serve.jobs.store.record import Delivery, Job, Progress, new_job_id
from serve.problems import unavailable
from serve.route_table import Row
from tests.unit.serve.http.openapi_schema import validate
from tests.unit.serve.jobs.fake_jobs import NOW, make_job

PROBLEM: dict[str, Any] = {"type": "object", "required": ["type", "status", "detail"]}
HOOK = Delivery(url="https://hooks.test/done", id="msg_1", attempts=3, next_at=NOW, error="503", state="failed")
JOBS = {
    "queued": make_job(),
    "starting": make_job(state="starting", progress=Progress(stage="starting", detail="loads the weights")),
    "running": make_job(state="running", started_at=NOW, progress=Progress(stage="decoding", eta_s=2.5, preview=True)),
    "succeeded": make_job(
        state="succeeded", seed=None, finished_at=NOW, webhook=HOOK, ignored=("sampler",), adjusted=(("steps", 30),)
    ),
    "failed": make_job(state="failed", problem=unavailable("asleep", 5).record("the-id"), webhook=replace(HOOK, next_at=None)),
    "cancelled": make_job(state="cancelled", cancel_requested=True),
}


@pytest.mark.parametrize("state", JOBS)
def test_the_record_of_a_job_in_each_state_is_as_the_schema_says(state: str) -> None:
    record = record_of(JOBS[state], position=3, links=Links())
    validate(record, JOB_SCHEMA, Problem=PROBLEM)
    assert list(record) == list(JOB_SCHEMA["properties"]) == JOB_SCHEMA["required"]
    assert record["links"].keys() == JOB_SCHEMA["properties"]["links"]["properties"].keys()
    if record["webhook"] is not None:
        assert record["webhook"].keys() == JOB_SCHEMA["properties"]["webhook"]["properties"].keys()


def test_every_state_is_in_the_schema_and_no_other() -> None:
    assert set(JOB_SCHEMA["properties"]["state"]["enum"]) == set(JOBS)


def test_the_example_is_a_record() -> None:
    validate(EXAMPLE, JOB_SCHEMA, Problem=PROBLEM)
    job = make_job(id=EXAMPLE["id"])
    plain = record_of(job, position=None, links=Links())
    assert EXAMPLE["links"] == plain["links"]
    assert EXAMPLE.keys() == plain.keys()


@pytest.mark.parametrize(
    "wrong", [{"state": "done"}, {"seed": "7"}, {"percent": 101}, {"links": {}}, {"error": {}}, {"webhook": {"state": "sent"}}]
)
def test_the_schema_refuses_what_is_no_record(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate({**EXAMPLE, **wrong}, JOB_SCHEMA, Problem=PROBLEM)


def parameters(row: Row) -> dict[str, Any]:
    return {parameter["name"]: parameter for parameter in job_operations()[row]["parameters"]}


def test_the_list_takes_what_the_document_says() -> None:
    listed = parameters(Row.JOBS)
    assert listed["limit"]["schema"] == {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE}
    assert listed["state"]["schema"]["enum"] == list(JOBS)
    assert not any(parameter["required"] for parameter in listed.values())


def test_every_path_with_an_id_says_what_an_id_is() -> None:
    for row, operation in job_operations().items():
        names = {parameter["name"]: parameter for parameter in operation["parameters"]}
        assert ("id" in names) is ("{id}" in row.path), row
        assert operation["responses"]["default"] == problem_response()
        if "id" in names:
            assert names["id"]["required"] is True
            jsonschema.validate(new_job_id(), names["id"]["schema"])
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate("A" * 32, names["id"]["schema"])


def test_an_accepted_request_has_the_headers_that_are_described() -> None:
    job: Job = make_job(ignored=("sampler",))
    response = accepted(job, position=0, links=Links(), preferences=Preferences(respond_async=True))
    described = {name.lower() for name in accepted_response()["headers"]}
    assert described == set(response.headers) - {"cache-control", "content-length", "content-type"}


def test_the_headers_that_make_jobs_are_optional_and_new_each_time() -> None:
    first, second = preference_parameters(), preference_parameters()
    assert [parameter["name"] for parameter in first] == ["Prefer", "Idempotency-Key", "Webhook-Url"]
    assert not any(parameter["required"] for parameter in first)
    first[0]["name"] = "changed"
    assert second[0]["name"] == preference_parameters()[0]["name"] == "Prefer"
