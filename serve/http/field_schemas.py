"""Translates the JSON Schema that pydantic makes for a field into OpenAPI 3.0."""

from collections.abc import Mapping
from typing import Any

from serve.pipelines.fields import IMAGES_SCHEMA

_AS_TEXT = "In JSON a file is a data URI or base64."


def openapi_field(written: Mapping[str, Any], *, form: bool, aliases: tuple[str, ...]) -> dict[str, Any]:
    """Return the schema of a field with its other names, as a part of a ``form`` or in JSON.

    In a form files are binary parts; in JSON they are strings.
    """
    entry: dict[str, Any] = _with_bounds(written)
    entry.pop("title", None)
    if "anyOf" in entry:  # every field may be null, which OpenAPI 3.0 cannot say as a type
        entry |= next(kind for kind in entry.pop("anyOf") if kind["type"] != "null")
        entry.pop("default", None)
    if entry.get("items", {}).get("format") == "binary" and not form:
        text = {"type": "string"}
        entry = {"description": f"{entry['description']} {_AS_TEXT}", "oneOf": [text, {**IMAGES_SCHEMA, "items": text}]}
    elif entry.get("format") == "binary":
        description = entry.get("description", "")
        text = {"type": "string", "description": f"{description} {_AS_TEXT}".strip()}
        entry = {"type": "string", "format": "binary", "description": description} if form else text
    if aliases:
        others = ", ".join(f"`{alias}`" for alias in aliases)
        entry["description"] = f"{entry.get('description', '')} Also called {others}.".strip()
    return entry


def _with_bounds(schema: Any) -> Any:
    """Return a schema, and what is in it, with its bounds as OpenAPI 3.0 has them.

    There an exclusive bound is a boolean beside the bound. Behind a validator, pydantic writes its
    own words for bounds.
    """
    if isinstance(schema, list):
        return [_with_bounds(entry) for entry in schema]
    if not isinstance(schema, Mapping):
        return schema
    entry = {name: _with_bounds(value) for name, value in schema.items()}
    for theirs, ours in (("ge", "minimum"), ("le", "maximum")):
        if theirs in entry:
            entry[ours] = entry.pop(theirs)
    for strict, bound, tighter in (("exclusiveMinimum", "minimum", max), ("exclusiveMaximum", "maximum", min)):
        limit = entry.get(strict)
        if isinstance(limit, int | float) and not isinstance(limit, bool):
            inclusive = entry.get(bound, limit)
            entry[bound] = tighter(limit, inclusive)
            entry[strict] = entry[bound] == limit
    return entry
