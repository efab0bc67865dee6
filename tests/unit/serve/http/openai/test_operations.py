"""The OpenAPI operations of /v1 against what the service sends there."""

from typing import Any

import jsonschema
import pytest

from serve.http.jobs.handlers import DEFAULT_PAGE, MAX_PAGE
from serve.http.openai.errors import error_of
from serve.http.openai.fields import video_of
from serve.http.openai.operations import ERROR_SCHEMA, VIDEO_SCHEMA, openai_operations
from serve.jobs.store.record import Progress
from serve.problems import invalid, unavailable
from serve.route_table import Row
from tests.unit.serve.http.openapi_schema import validate
from tests.unit.serve.jobs.fake_jobs import NOW, make_job

MODELS = ("wan2.6", "wan22")
DETAILS = {"model": "wan2.6", "prompt": None, "size": "832x480", "seconds": "2"}
LOST = unavailable("both replicas died", 5).record("the-id")
JOBS = {
    "queued": make_job(),
    "starting": make_job(state="starting", progress=Progress(stage="starting")),
    "running": make_job(state="running", details=DETAILS, progress=Progress(stage="denoising", percent=40.6, eta_s=2.5)),
    "succeeded": make_job(state="succeeded", seed=None, details={**DETAILS, "prompt": "a cat"}, finished_at=NOW + 9.5),
    "failed": make_job(state="failed", details=DETAILS, problem=LOST),
    "cancelled": make_job(state="cancelled", details=DETAILS),
}


@pytest.mark.parametrize("state", JOBS)
def test_a_video_in_each_state_is_as_the_schema_says(state: str) -> None:
    video = video_of(JOBS[state])
    validate(video, VIDEO_SCHEMA)
    assert list(video) == list(VIDEO_SCHEMA["properties"])


@pytest.mark.parametrize("wrong", [{"status": "running"}, {"progress": 101}, {"created_at": NOW + 0.5}, {"size": None}])
def test_the_schema_refuses_what_is_no_video(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate({**video_of(JOBS["running"]), **wrong}, VIDEO_SCHEMA)


@pytest.mark.parametrize("problem", [invalid("prompt", "is required").record("the-id"), LOST, {}])
def test_an_error_is_as_the_schema_says(problem: dict[str, Any]) -> None:
    validate({"error": error_of(problem)}, ERROR_SCHEMA)


def test_the_models_that_can_be_named_are_those_of_the_service() -> None:
    operations = openai_operations(MODELS)
    content = operations[Row.CREATE_VIDEO]["requestBody"]["content"]
    for media_type in ("application/json", "multipart/form-data"):
        model = content[media_type]["schema"]["properties"]["model"]
        assert (model["enum"], model["default"]) == (list(MODELS), MODELS[0])
    (identifier,) = operations[Row.MODEL]["parameters"]
    assert identifier["schema"]["enum"] == list(MODELS)


def test_json_and_a_form_take_the_same_fields_and_the_example_is_one_of_them() -> None:
    content = openai_operations(MODELS)[Row.CREATE_VIDEO]["requestBody"]["content"]
    as_json, as_form = (content[media_type]["schema"] for media_type in ("application/json", "multipart/form-data"))
    assert as_json["properties"].keys() == as_form["properties"].keys()
    assert as_json["required"] == as_form["required"] == ["prompt"]
    assert as_form["properties"]["input_reference"] == {"type": "string", "format": "binary"}
    validate(content["application/json"]["example"], as_json)


def test_the_list_has_the_pages_of_the_service() -> None:
    paging = {entry["name"]: entry["schema"] for entry in openai_operations(MODELS)[Row.VIDEOS]["parameters"]}
    assert paging["limit"] == {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE}
    assert paging["order"]["default"] == "desc"


def test_every_operation_has_a_name_of_its_own_and_says_what_an_error_is() -> None:
    operations = openai_operations(MODELS)
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    for row, operation in operations.items():
        error = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/Error"}
        required = [entry["name"] for entry in operation["parameters"] if entry.get("required")]
        assert required == (["id"] if "{id}" in row.path else []), row
