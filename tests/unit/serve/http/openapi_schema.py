"""Schemas of our OpenAPI document as JSON Schema, against which tests check answers."""

from typing import Any

import jsonschema


def without_nullable(schema: Any) -> Any:
    """Return a schema of OpenAPI 3.0 in JSON Schema, which has no `nullable`."""
    if isinstance(schema, list):
        return [without_nullable(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    plain = {name: without_nullable(entry) for name, entry in schema.items() if name not in ("nullable", "example")}
    return {"anyOf": [plain, {"type": "null"}]} if schema.get("nullable") is True else plain


def validate(body: Any, schema: dict[str, Any], **schemas: dict[str, Any]) -> None:
    """Check JSON against a schema that may refer to ``schemas`` among the components."""
    components = {"components": {"schemas": without_nullable(schemas)}}
    jsonschema.Draft4Validator({**without_nullable(schema), **components}).validate(body)
