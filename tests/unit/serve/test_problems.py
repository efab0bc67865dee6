import ast
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest
import ray.exceptions
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError

from deployments.errors import (
    Cancelled,
    CheckpointRefused,
    NoFaceFound,
    NotFinite,
    PromptTooLong,
    VideoTooLarge,
    WeightsDamaged,
)
from serve.pipelines.errors import MediaOverLimit, ModelUnavailable
from serve.problems import REQUIRED, TITLES, FieldError, Problem, invalid, invalid_fields, problem_of, unavailable

TRACEBACK = 'Traceback: File "/srv/engine.py", line 12, in generate'


def wrapped(cause: Exception) -> Exception:
    """Return ``cause`` as Ray raises it at the caller of a replica."""
    error_class: Any = ray.exceptions.RayTaskError  # Ray's constructor has no types
    error: Exception = error_class("swap", TRACEBACK, cause).as_instanceof_cause()
    return error


def test_a_problem_is_a_response_with_all_its_parts() -> None:
    problem = Problem(503, "unavailable", "asleep", headers={"Retry-After": "5"})
    response = problem.response("the-id")
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["retry-after"] == "5"
    assert response.headers["x-request-id"] == "the-id"
    body = json.loads(bytes(response.body))
    instance = body.pop("instance")
    assert body == {
        "type": "urn:ryla:problem:unavailable",
        "title": "Not available now",
        "status": 503,
        "detail": "asleep",
        "request_id": "the-id",
    }
    assert uuid.UUID(instance.removeprefix("urn:uuid:")).version == 4
    assert json.loads(bytes(problem.response("the-id").body))["instance"] != instance


def test_an_unknown_kind_of_problem_is_an_error() -> None:
    with pytest.raises(KeyError):
        Problem(400, "no-such-kind", "?").response("the-id")


def test_a_field_becomes_a_json_pointer() -> None:
    body = json.loads(bytes(invalid("a/b~c", "is odd").response("the-id").body))
    assert body["errors"] == [{"pointer": "#/a~1b~0c", "detail": "is odd"}]


def test_the_detail_lists_every_wrong_field() -> None:
    problem = invalid_fields([FieldError("prompt", REQUIRED), FieldError("cfg", "must be a finite number")])
    assert (problem.status, problem.slug) == (422, "invalid-field")
    assert problem.detail == "`prompt` is required; `cfg`: must be a finite number"


def test_fields_get_the_names_that_the_caller_used() -> None:
    problem = invalid_fields([FieldError("image", "is truncated"), FieldError("cfg", "is odd")])
    named = problem.with_field_names({"image": "source_image", "face": "face_image"})
    assert [error.field for error in named.errors] == ["source_image", "cfg"]
    assert named.detail == "`source_image`: is truncated; `cfg`: is odd"
    assert (named.status, named.slug) == (422, "invalid-field")
    other = unavailable("asleep", 5)
    assert other.with_field_names({"image": "source_image"}) is other


@pytest.mark.parametrize(("seconds", "header"), [(0, "1"), (0.2, "1"), (10, "10"), (10.01, "11")])
def test_retry_after_is_a_whole_number_of_at_least_one_second(seconds: float, header: str) -> None:
    assert unavailable("asleep", seconds).headers == {"Retry-After": header}


@pytest.mark.parametrize(
    ("error", "status", "slug", "detail"),
    [
        (NoFaceFound("face", "no face found"), 422, "invalid-field", "`face`: no face found"),
        (PromptTooLong("prompt", "600 tokens"), 422, "invalid-field", "`prompt`: 600 tokens"),
        (VideoTooLarge("width", "too large"), 422, "invalid-field", "`width`: too large"),
        (MediaOverLimit("source", "8K"), 413, "media-too-large", "`source`: 8K"),
        (NotFinite("the model has computed NaN"), 500, "internal", "the model has computed NaN"),
        (WeightsDamaged("the weights are damaged"), 500, "internal", "the weights are damaged"),
        (CheckpointRefused("/srv/weights is cut off"), 503, "unavailable", "the model could not be started"),
        (DeploymentUnavailableError(DeploymentID("Wan26")), 503, "unavailable", "the model could not be started"),
        (ray.exceptions.ActorDiedError(), 502, "replica-lost", "so did its replacement"),
        (ray.exceptions.WorkerCrashedError(), 502, "replica-lost", "so did its replacement"),
        (ray.exceptions.NodeDiedError("10.0.0.7"), 502, "replica-lost", "so did its replacement"),
        (ReplicaUnavailableError("Wan26#1"), 502, "replica-lost", "so did its replacement"),
        (ray.exceptions.ObjectStoreFullError("/srv"), 503, "unavailable", "the cluster has no room"),
        (Cancelled("stopped"), 502, "replica-lost", "so did its replacement"),
        (TimeoutError(), 504, "timeout", "reached its time limit"),
        (Problem(406, "not-acceptable", "no"), 406, "not-acceptable", "no"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
@pytest.mark.parametrize("by_ray", [False, True], ids=["here", "in a replica"])
def test_each_error_is_a_problem(error: Exception, status: int, slug: str, detail: str, by_ray: bool) -> None:
    problem = problem_of(wrapped(error) if by_ray else error)
    assert problem is not None
    assert (problem.status, problem.slug) == (status, slug)
    assert detail in problem.detail
    assert "/srv" not in problem.detail
    assert "\n" not in problem.detail
    assert len(problem.detail) < 200


FAULTS_OF_CODE = {
    "ActorAlreadyExistsError",
    "ActorHandleNotFoundError",
    "ActorPlacementGroupRemoved",
    "AsyncioActorExit",
    "AuthenticationError",
    "CrossLanguageError",
    "GetTimeoutError",
    "ObjectRefStreamEndOfStreamError",
    "OufOfBandObjectRefSerializationException",
    "PlasmaObjectNotAvailable",
    "RayError",
    "RayTaskError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "UnserializableException",
    "UserCodeException",
}
"""Errors of Ray that only a fault of our code or of the set-up can cause here, or that only wrap
another error."""


def test_every_error_that_ray_raises_for_a_loss_is_a_problem_that_says_when_to_come_back() -> None:
    """A new version of Ray may have more: each must be sorted in here or in ``problem_of``."""
    errors = {
        name: error
        for name, error in vars(ray.exceptions).items()
        if isinstance(error, type) and issubclass(error, ray.exceptions.RayError)
    }
    problems = {name: problem_of(error.__new__(error)) for name, error in errors.items() if name not in FAULTS_OF_CODE}
    assert [name for name, problem in problems.items() if problem is None] == []
    assert {problem.status for problem in problems.values() if problem} == {502, 503}
    assert all(int(problem.headers["Retry-After"]) >= 1 for problem in problems.values() if problem)


def test_a_model_that_cannot_take_a_request_says_when_to_come_back() -> None:
    problem = problem_of(ModelUnavailable("wan26 could not be started", 60))
    assert problem is not None
    assert (problem.detail, problem.headers) == ("wan26 could not be started", {"Retry-After": "60"})
    full = problem_of(BackPressureError(num_queued_requests=2, max_queued_requests=2), retry_after_s=33.5)
    assert full is not None
    assert (full.status, full.detail, full.headers) == (503, "the model's queue is full", {"Retry-After": "34"})


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyError("ours"), wrapped(ValueError("ours"))])
def test_any_other_error_is_our_own_fault(error: Exception) -> None:
    assert problem_of(error) is None


def test_titles_are_short_and_differ() -> None:
    assert len(set(TITLES.values())) == len(TITLES)
    assert all(title[0].isupper() and not title.endswith(".") for title in TITLES.values())


@pytest.mark.slow
def test_whoever_is_told_to_come_back_is_told_when() -> None:
    """Every place that makes a 429 or a 503 gives it the header."""
    assert unavailable("busy", 0.2).headers == {"Retry-After": "1"}
    assert unavailable("busy", 41.2).headers == {"Retry-After": "42"}
    root = Path(__file__).parents[3] / "serve"
    calls = [
        (path.name, ast.unparse(call))
        for path in root.rglob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and ast.unparse(call.func).endswith(("Problem", "Response"))
    ]
    refusals = [(name, text) for name, text in calls if re.search(r"\b(?:429|503)\b", text)]
    assert {name for name, _ in refusals} == {"problems.py"}
    assert [(name, text) for name, text in refusals if "Retry-After" not in text] == []
