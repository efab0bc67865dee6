"""Builds the OpenAPI document from the table of routes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from serve.http.endpoints import Endpoint
from serve.http.examples import example
from serve.http.version import VERSION


def openapi_document(operations: Iterable[tuple[str, str, dict[str, Any]]], *, keys: bool) -> dict[str, Any]:
    """Return a document for operations, each given as (path, method, operation).

    It is OpenAPI 3.0, the newest version that the packaged Swagger UI shows. ``keys`` says whether
    callers need a key.
    """
    paths: dict[str, Any] = {}
    for path, method, operation in operations:
        paths.setdefault(path, {})[method.lower()] = operation
    document: dict[str, Any] = {
        "openapi": "3.0.3",
        "info": {"title": "ryla-serve", "version": VERSION},
        "paths": paths,
        "components": {"schemas": {"Problem": _PROBLEM}},
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
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        "summary": endpoint.summary,
        "operationId": path.strip("/").replace(".", "-"),
        "requestBody": {"required": True, "content": content},
        "responses": {
            "200": {
                "description": "The result",
                "content": {media_type: {"schema": binary} for media_type in endpoint.media_types},
            },
            "default": {"description": "A problem (RFC 9457)", "content": problem},
        },
    }


def service_operation(summary: str, query: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
    """Return the operation of a GET route; ``query`` maps optional parameters to their values."""
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {"application/json": {}}}},
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
        "requestBody": {
            "required": False,
            "content": {"application/json": {"schema": {"type": "object", "properties": {"models": names}}}},
        },
        "responses": {"202": {"description": "The models are starting"}},
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
