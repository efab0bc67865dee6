"""Every schema of the document is one of OpenAPI 3.0.3, whose words differ from JSON Schema's."""

from collections.abc import Iterator
from typing import Annotated, Any

import jsonschema
import pytest
from pydantic import BaseModel, Field
from starlette.testclient import TestClient

from serve.config import AppConfig
from serve.http.field_schemas import openapi_field
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.openapi_schema import validate
from tests.unit.serve.http.service import make_config, make_service_of

TEXT, FLAG, NUMBER, COUNT = {"type": "string"}, {"type": "boolean"}, {"type": "number"}, {"type": "integer", "minimum": 0}
TYPES = ("array", "boolean", "integer", "number", "object", "string")
SCHEMA = {"$ref": "#/definitions/schema"}
SCHEMAS = {"type": "array", "items": SCHEMA, "minItems": 1}
DIALECT: dict[str, Any] = {
    **SCHEMA,
    "definitions": {
        "schema": {
            "oneOf": [
                {
                    "type": "object",
                    "required": ["$ref"],
                    "properties": {"$ref": {"type": "string", "pattern": "^#/components/schemas/"}},
                    "additionalProperties": False,
                },
                {
                    "type": "object",
                    "properties": {
                        **dict.fromkeys(("title", "description", "format", "pattern"), TEXT),
                        **dict.fromkeys(("minimum", "maximum"), NUMBER),
                        "multipleOf": {"type": "number", "minimum": 0, "exclusiveMinimum": True},
                        **dict.fromkeys(
                            ("maxLength", "minLength", "maxItems", "minItems", "maxProperties", "minProperties"), COUNT
                        ),
                        **dict.fromkeys(
                            (
                                "exclusiveMinimum", "exclusiveMaximum", "uniqueItems", "nullable", "readOnly", "writeOnly",
                                "deprecated",
                            ),
                            FLAG,
                        ),
                        "type": {"enum": list(TYPES)},
                        "enum": {"type": "array", "minItems": 1},
                        "required": {"type": "array", "items": TEXT, "minItems": 1, "uniqueItems": True},
                        "properties": {"type": "object", "additionalProperties": SCHEMA},
                        "additionalProperties": {"anyOf": [FLAG, SCHEMA]},
                        "items": SCHEMA,
                        "not": SCHEMA,
                        **dict.fromkeys(("allOf", "oneOf", "anyOf"), SCHEMAS),
                        "default": {},
                        "example": {},
                        "discriminator": {"type": "object"},
                    },
                    "additionalProperties": False,
                },
            ],
        },
    },
}  # fmt: skip
"""The Schema Object of the specification, in JSON Schema's draft 4. It ends without extensions."""
VALIDATOR = jsonschema.Draft4Validator(DIALECT)


def schemas(part: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield each schema of a document with where it is, but not those inside of others."""
    if isinstance(part, list):
        for number, entry in enumerate(part):
            yield from schemas(entry, f"{path}/{number}")
    elif isinstance(part, dict):
        for name, value in part.items():
            if name == "schema":
                yield f"{path}/{name}", value
            elif path == "/components" and name == "schemas":
                yield from ((f"{path}/{name}/{key}", schema) for key, schema in value.items())
            elif name not in ("example", "examples"):
                yield from schemas(value, f"{path}/{name}")


def with_defaults(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and those inside that have a default."""
    if isinstance(schema, dict):
        if "default" in schema and "properties" not in schema:
            yield schema
        for value in schema.values():
            yield from with_defaults(value)
    elif isinstance(schema, list):
        for entry in schema:
            yield from with_defaults(entry)


@pytest.mark.parametrize("config", [AppConfig(), make_config()], ids=["defaults", "small videos"])
def test_every_schema_is_one_of_openapi_3_0_and_allows_its_own_default(config: AppConfig) -> None:
    document = TestClient(make_service_of(config, FakeGraph())).get("/openapi.json").json()
    assert document["openapi"] == "3.0.3"
    found = dict(schemas(document))
    assert len(found) > 60
    for path, schema in found.items():
        VALIDATOR.validate(schema)
        jsonschema.Draft4Validator.check_schema(schema)
        for field in with_defaults(schema):
            validate(field["default"], field)
        for array in (part for part in _parts(schema) if part.get("type") == "array"):
            assert "items" in array, path


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        yield schema
    for value in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _parts(value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "number", "exclusiveMinimum": 0},
        {"type": ["string", "null"]},
        {"type": "null"},
        {"const": 1},
        {"type": "array", "prefixItems": [{"type": "string"}]},
        {"anyOf": [{"type": "string"}, {"type": "null"}]},
        {"type": "object", "properties": {"share": {"type": "number", "exclusiveMaximum": 1.0}}},
        {"$ref": "#/$defs/Colour"},
        {"type": "object", "required": []},
        {"type": "integer", "ge": 0},
    ],
)
def test_the_words_of_later_drafts_are_told_from_those_of_openapi_3_0(wrong: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(wrong)


class Bounds(BaseModel):
    over: Annotated[float, Field(gt=0, le=1)]
    both: Annotated[float, Field(gt=0, ge=0)]
    under: Annotated[int, Field(lt=5, ge=1)]
    closer: Annotated[int, Field(gt=0, ge=3)]
    many: Annotated[list[Annotated[float, Field(gt=1)]], Field(min_length=1)]


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [("over", 0.1, 0), ("both", 0.1, 0), ("under", 4, 5), ("closer", 3, 2), ("many", [1.1], [1.0])],
)
def test_bounds_keep_their_meaning(name: str, allowed: object, refused: object) -> None:
    schema = openapi_field(Bounds.model_json_schema()["properties"][name], form=False, aliases=())
    VALIDATOR.validate(schema)
    validate(allowed, schema)
    with pytest.raises(jsonschema.ValidationError):
        validate(refused, schema)
