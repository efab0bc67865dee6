"""Builds the OpenAPI document from the table of routes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serve.http.endpoints import FACES, VIDEOS, Endpoint
from serve.http.examples import example
from serve.http.jobs.operations import JOB_SCHEMA, JOBS, accepted_response, preference_parameters, problem_response
from serve.http.openai.operations import ERROR_SCHEMA, OPENAI, VIDEO_SCHEMA
from serve.http.version import VERSION

SERVICE = "Service"
TAGS = {
    VIDEOS: "Make a video from a prompt, an image or both, with or without a face swapped into every frame.",
    FACES: "Replace faces in an image or a video.",
    JOBS: "Follow, fetch, cancel and list the requests that became jobs, by `Prefer` or `Idempotency-Key`.",
    OPENAI: "The same jobs in the dialect of OpenAI's videos API, for programs that use its clients.",
    SERVICE: "Health, readiness and limits of the service. Only `POST /warm` wakes a model.",
}
"""The groups of operations, in the order in which the page shows them."""

INTRODUCTION = """Makes short videos and replaces faces in images and videos.

- **Try it here**: open an operation, press *Try it out* and then *Execute*. The example in
  JSON works as it is.
- **Requests** are JSON, with files as data URIs or base64, or forms (`multipart/form-data`), with
  files as parts.
- **Results** are files, whose format `Accept` chooses. Headers say how they were made: frames,
  seed, seconds, cost.
- **Jobs**: with `Prefer: respond-async` a request is answered at once by the record of a job,
  which outlives the connection.
- **The same seed** gives the same pixels, and the same bytes where results are not
  signed. Without a seed, one is drawn and returned in `X-Seed`.
- **Limits and defaults** that are in force here: [`GET /limits`](#/Service/limits).
- **Failures** are problems in JSON (RFC 9457): `detail` says what is wrong and what to send
  instead, and `errors` names each field.
"""
KEYS = "- **Keys**: press *Authorize* and enter yours. Programs send it as `Authorization: Bearer KEY`.\n"


def openapi_document(operations: Iterable[tuple[str, str, dict[str, Any]]], *, keys: bool) -> dict[str, Any]:
    """Return a document for operations, each given as (path, method, operation).

    It is OpenAPI 3.0, the newest version that the packaged Swagger UI shows. ``keys`` says whether
    callers need a key.
    """
    paths: dict[str, Any] = {}
    used: set[str] = set()
    for path, method, operation in operations:
        paths.setdefault(path, {})[method.lower()] = operation
        used.update(operation.get("tags", ()))
    introduction = INTRODUCTION + (KEYS if keys else "")
    document: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {"title": "ryla-serve", "version": VERSION, "description": introduction},
        "tags": [{"name": name, "description": description} for name, description in TAGS.items() if name in used],
        "paths": paths,
        "components": {"schemas": {"Problem": _PROBLEM, "Job": JOB_SCHEMA, "Video": VIDEO_SCHEMA, "Error": ERROR_SCHEMA}},
    }
    if keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    return document


def endpoint_operation(endpoint: Endpoint, path: str) -> dict[str, Any]:
    """Return the operation of an endpoint, whose example works when it is pasted."""
    content = {
        "application/json": {"schema": endpoint.schema.json_schema(), "example": example(endpoint.name)},
        "multipart/form-data": {"schema": endpoint.schema.json_schema(form=True)},
    }
    binary = {"type": "string", "format": "binary"}
    return {
        "summary": endpoint.summary,
        "description": _describe(endpoint),
        "operationId": operation_id(path),
        "tags": [endpoint.group],
        "parameters": preference_parameters(),
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "The result",
                "content": {media_type: {"schema": binary} for media_type in endpoint.media_types},
            },
            "202": accepted_response(),
            "303": {"description": "Where to wait for the result, if the service has `jobs.redirect_after_s`"},
            "default": problem_response(),
        },
    }


def _describe(endpoint: Endpoint) -> str:
    """Return the formats and models of an endpoint in words."""
    default, *others = (f"`{media_type}`" for media_type in endpoint.media_types)
    models = " and ".join(f"`{model.name}`" for model in endpoint.models)
    return f"Returns {default} by default, or {' or '.join(others)} if `Accept` asks for it. Uses {models}."


def operation_id(path: str) -> str:
    """Return the id of the operation at ``path``, with which links lead to it on the page."""
    return path.strip("/").replace(".", "-") or "root"


def service_operation(
    path: str,
    summary: str,
    *,
    query: Mapping[str, Sequence[str]] | None = None,
    media_types: Sequence[str] = ("application/json",),
) -> dict[str, Any]:
    """Return the operation of a GET route; ``query`` maps optional parameters to their values."""
    operation: dict[str, Any] = {
        "summary": summary,
        "operationId": operation_id(path),
        "tags": [SERVICE],
        "responses": {
            "200": {"description": summary, "content": {media_type: {} for media_type in media_types}},
            "default": problem_response(),
        },
    }
    if query:
        operation["parameters"] = [
            {"name": name, "in": "query", "required": False, "schema": {"type": "string", "enum": list(values)}}
            for name, values in query.items()
        ]
    return operation


def warm_operation(models: Sequence[str]) -> dict[str, Any]:
    """Return the operation of POST /warm."""
    names = {"type": "array", "items": {"type": "string", "enum": list(models)}}
    return {
        "summary": "Start models that are scaled to zero; without names, all of them",
        "operationId": "warm",
        "tags": [SERVICE],
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": {"type": "object", "properties": {"models": names}}}},
        },
        "responses": {
            "202": {"description": "The models are starting", "content": {"application/json": {}}},
            "default": problem_response(),
        },
    }


def verify_operation(*, needs_key: bool) -> dict[str, Any]:
    """Return the operation of POST /verify."""

    def fields(**file: str) -> dict[str, Any]:
        properties = {"file": {"type": "string", "description": "The picture or the video.", **file}}
        return {"schema": {"type": "object", "properties": properties, "required": ["file"]}}

    return {
        "summary": "Say what marks a file carries, whether they are valid, and whether they say that AI made it",
        "operationId": "verify",
        "tags": [SERVICE],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": fields(description="The picture or the video as a data URI or base64."),
                "multipart/form-data": fields(format="binary"),
            },
        },
        "responses": {
            "200": {"description": "The report", "content": {"application/json": {"schema": {"type": "object"}}}},
            "default": problem_response(),
        },
        **({} if needs_key else {"security": []}),
    }


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "instance", "request_id")},
        "status": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {name: {"type": "string"} for name in ("pointer", "header", "parameter", "detail")},
            },
        },
    },
}
