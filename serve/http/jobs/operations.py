"""The OpenAPI operations of jobs, and the schema of their records."""

from typing import Any, get_args

from serve.http.jobs.event_stream import MEDIA_TYPE
from serve.jobs.results.headers import IGNORED_FIELDS
from serve.jobs.store.record import Stage, State
from serve.route_table import EndpointName, Row

JOBS = "Jobs"
Operation = dict[str, Any]

EXAMPLE: dict[str, Any] = {
    "id": "5f0c3a9d2e8b4c71a6d0f3b2c9e87d14",
    "model": EndpointName.WAN26.value,
    "state": "running",
    "stage": "denoising",
    "detail": None,
    "step": 12,
    "steps": 30,
    "percent": 38.5,
    "queue_position": None,
    "eta_seconds": 41.2,
    "seed": 7,
    "ignored_fields": [],
    "adjusted_fields": {},
    "attempts": 1,
    "cancel_requested": False,
    "created_at": "2026-11-25T22:15:00.120Z",
    "started_at": "2026-11-25T22:15:03.480Z",
    "finished_at": None,
    "expires_at": "2026-11-26T22:15:00.120Z",
    "request_id": "c2fd39845fa9425795d3f6034b32b131",
    "links": {
        "self": "/jobs/5f0c3a9d2e8b4c71a6d0f3b2c9e87d14",
        "events": "/jobs/5f0c3a9d2e8b4c71a6d0f3b2c9e87d14/events",
        "result": "/jobs/5f0c3a9d2e8b4c71a6d0f3b2c9e87d14/result",
        "preview": None,
    },
    "error": None,
    "webhook": None,
}
"""A record, as the document and its schema show it."""


def _text(**more: Any) -> dict[str, Any]:
    return {"type": "string", **more}


_TIME = _text(format="date-time")


def _or_null(schema: dict[str, Any], description: str = "") -> dict[str, Any]:
    return {**schema, "nullable": True, **({"description": description} if description else {})}


JOB_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": list(EXAMPLE),
    "example": EXAMPLE,
    "properties": {
        "id": _text(),
        "model": _text(description="The name of the endpoint that takes such requests, as in `X-Model`."),
        "state": _text(enum=list(get_args(State))),
        "stage": _text(enum=list(get_args(Stage)), description="What the job is doing, or did when it ended."),
        "detail": _or_null(_text(), "What a model that is starting is doing."),
        "step": {"type": "integer", "description": "Denoise steps, or frames while faces are swapped."},
        "steps": {"type": "integer"},
        "percent": {"type": "number", "minimum": 0, "maximum": 100},
        "queue_position": _or_null(
            {"type": "integer"}, "The number of jobs that start before this one while it is queued; null in lists."
        ),
        "eta_seconds": _or_null({"type": "number"}, "Seconds until the result is there, from the model's own pace."),
        "seed": _or_null({"type": "integer"}),
        "ignored_fields": {
            "type": "array",
            "items": _text(),
            "description": "The fields of the request that have no effect, as in `X-Ignored-Fields`.",
        },
        "adjusted_fields": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "The fields that were lowered to the limits, with the values that are used, as in `X-Adjusted`.",
        },
        "attempts": {"type": "integer", "description": "More than 1 after a replica was lost."},
        "cancel_requested": {"type": "boolean"},
        "created_at": _TIME,
        "started_at": _or_null(_TIME),
        "finished_at": _or_null(_TIME),
        "expires_at": {**_TIME, "description": "When the record and the result are deleted."},
        "request_id": _text(description="The id of the request that the job came from."),
        "links": {
            "type": "object",
            "required": ["self", "events", "result", "preview"],
            "properties": {**{name: _text() for name in ("self", "events", "result")}, "preview": _or_null(_text())},
            "description": "Where keys are required, these links work for an hour without one.",
        },
        # OpenAPI 3.0 ignores what stands beside a reference, so the reference is wrapped.
        "error": _or_null({"allOf": [{"$ref": "#/components/schemas/Problem"}]}, "Why the job has failed."),
        "webhook": _or_null(
            {
                "type": "object",
                "properties": {
                    **{name: _text() for name in ("url", "id")},
                    "state": _text(enum=["pending", "delivered", "failed"]),
                    "attempts": {"type": "integer"},
                    "next_at": _or_null(_TIME),
                    "error": _or_null(_text()),
                },
            }
        ),
    },
}
"""The schema of a record, in OpenAPI 3.0."""

JOB_REFERENCE = {"$ref": "#/components/schemas/Job"}
_ID = {"name": "id", "in": "path", "required": True, "schema": _text(pattern="^[0-9a-f]{32}$")}
_BINARY = _text(format="binary")


def problem_response() -> Operation:
    """Return the description of every response that is a problem."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {"description": "A problem (RFC 9457)", "content": {"application/problem+json": schema}}


def accepted_response() -> Operation:
    """Return the description of the 202 response to a request that has become a job."""
    names = ("Location", "Preference-Applied", "Retry-After", IGNORED_FIELDS)
    return {
        "description": "The request has become a job, because `Prefer` asked for it",
        "headers": {name: {"schema": _text()} for name in names},
        "content": {"application/json": {"schema": JOB_REFERENCE}},
    }


def preference_parameters() -> list[Operation]:
    """Return the request headers that turn a request into a job."""
    return [
        _header("Prefer", "`respond-async` for the job's record at once, `wait=N` for it after N seconds without a result."),
        _header("Idempotency-Key", "Names the request: sent again, it is the same job.", minLength=1, maxLength=255),
        _header("Webhook-Url", "Where the end of the job is reported.", format="uri"),
    ]


def job_operations() -> dict[Row, Operation]:
    """Return the operations of the routes of jobs."""
    record = {"application/json": {"schema": JOB_REFERENCE}}
    stream = {MEDIA_TYPE: {"schema": _text()}}
    wait = _query("wait", {"type": "integer", "minimum": 0}, "Seconds to wait for the result.")
    result = {"*/*": {"schema": _BINARY}}
    page = {
        "type": "object",
        "required": ["jobs", "next"],
        "properties": {"jobs": {"type": "array", "items": JOB_REFERENCE}, "next": _or_null(_text(), "The next page.")},
    }
    listed = [
        _query("state", _text(enum=list(get_args(State)))),
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}),
        _query("cursor", _text(), "From the link to the next page."),
    ]
    last = _header("Last-Event-ID", "The id of the last event that was received.")
    return {
        Row.JOBS: _operation(
            "Lists your jobs, newest first",
            "jobs",
            responses={"200": ("The jobs", {"application/json": {"schema": page}})},
            parameters=listed,
        ),
        Row.JOB: _operation(
            "Says how far a job is",
            "job",
            responses={"200": ("The record, or the events", {**record, **stream})},
            parameters=[_ID],
        ),
        Row.DELETE_JOB: _operation(
            "Cancels a job, or deletes one that has ended",
            "delete-job",
            responses={"202": ("The job is being cancelled", record), "204": ("The job and its result are deleted", None)},
            parameters=[_ID],
        ),
        Row.CANCEL_JOB: _operation(
            "Cancels a job, and leaves one that has ended as it is",
            "cancel-job",
            responses={"200": ("The job had ended before", record), "202": ("The job is being cancelled, or has been", record)},
            parameters=[_ID],
        ),
        Row.JOB_EVENTS: _operation(
            "Sends what happens to a job as server-sent events",
            "job-events",
            responses={"200": ("The events", stream), "204": ("There are no more events", None)},
            parameters=[_ID, last],
        ),
        Row.JOB_RESULT: _operation(
            "Returns a job's result",
            "job-result",
            responses={
                "200": ("The result", result),
                "206": ("The part that `Range` asks for", result),
                "303": ("Not there yet: wait on", None),
                "304": ("Unchanged", None),
            },
            parameters=[_ID, wait, _header("Range", "The part that is wanted, such as `bytes=0-999`.")],
        ),
        Row.JOB_PREVIEW: _operation(
            "Returns the latest decoded frame of a video that is being made",
            "job-preview",
            responses={"200": ("The frame", {"image/jpeg": {"schema": _BINARY}})},
            parameters=[_ID],
        ),
    }


def _operation(
    summary: str, name: str, responses: dict[str, tuple[str, dict[str, Any] | None]], parameters: list[Operation]
) -> Operation:
    described = {
        status: {"description": description, **({} if content is None else {"content": content})}
        for status, (description, content) in responses.items()
    }
    return {
        "summary": summary,
        "operationId": name,
        "tags": [JOBS],
        "parameters": parameters,
        "responses": {**described, "default": problem_response()},
    }


def _query(name: str, schema: dict[str, Any], description: str = "") -> Operation:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def _header(name: str, description: str, **schema: Any) -> Operation:
    return {"name": name, "in": "header", "required": False, "schema": _text(**schema), "description": description}
