"""The OpenAPI document, made from the endpoint table."""

import importlib.metadata
from collections.abc import Iterable
from typing import Any

from serve.endpoints import Endpoint
from serve.readiness import MODELS
from serve.samples import example

VERSION = importlib.metadata.version("ryla-serve")


def openapi_document(endpoints: Iterable[Endpoint], *, keys: bool) -> dict[str, Any]:
    """OpenAPI 3.0, the newest that the packaged Swagger UI draws. The examples work when pasted. ``keys``: whether callers need one."""
    paths: dict[str, Any] = {path: {"post": _operation(endpoint, path)} for endpoint in endpoints for path in endpoint.paths}
    paths["/health"] = {"get": _get("This service is there; wakes no model")}
    paths["/"] = {"get": _get("What this is; needs no model and no key")}
    paths["/healthz"] = {"get": _get("This ingress process is alive")}
    paths["/readyz"] = {"get": _get("Requests are accepted; the state of each model")}
    paths["/readyz"]["get"]["parameters"] = [
        {"name": "model", "in": "query", "required": False, "schema": {"type": "string", "enum": list(MODELS)}}
    ]
    paths["/limits"] = {"get": _get("The limits, defaults and prices in force")}
    warm = {"type": "object", "properties": {"models": {"type": "array", "items": {"type": "string", "enum": list(MODELS)}}}}
    paths["/warm"] = {
        "post": {
            "summary": "Brings models up from zero; absent: all",
            "requestBody": {"required": False, "content": {"application/json": {"schema": warm}}},
            "responses": {"202": {"description": "Models are being brought up"}},
        }
    }
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


def _operation(endpoint: Endpoint, path: str) -> dict[str, Any]:
    schema = endpoint.schema.json_schema()
    content = {"application/json": {"schema": schema, "example": example(endpoint.name)}}
    if endpoint.form:
        content["multipart/form-data"] = {"schema": endpoint.schema.json_schema(form=True)}
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


def _get(summary: str) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": {"description": summary, "content": {"application/json": {}}}}}


_PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "request_id"],
    "properties": {
        **{name: {"type": "string"} for name in ("type", "title", "detail", "instance", "request_id")},
        "status": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": {"type": "object", "properties": {"pointer": {"type": "string"}, "detail": {"type": "string"}}},
        },
    },
}
