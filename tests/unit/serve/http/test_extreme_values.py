"""Numbers beyond every limit, and texts that hold far more values than any field takes."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from loadtest.body_attacks import BOUNDARY, costly_requests
from serve.config import AppConfig
from serve.http.endpoints import make_endpoints
from serve.http.examples import payload
from serve.http.openai.fields import Order, VideoModels
from serve.http.schemas import Schema
from serve.problems import Problem

ENDPOINTS = make_endpoints(AppConfig())
SCHEMAS = {endpoint.name: endpoint.schema for endpoint in ENDPOINTS}
NUMBERS = (
    *(10**400, -(10**400), 10**63, 2**63, 1e308, -1e308, -0.0, 5e-324, float("nan"), float("inf")),
    *("1" + "0" * 400, "9" * 1_000_000, "1e308", "1e999", "5e-324", "-0.0", "nan", "-inf"),
)
MODELS = VideoModels(ENDPOINTS)
MANY = 100_000
TEXTS = {
    "commas": "," * MANY,
    "words": "nose," * MANY,
    "numbers": "[" + "0.1," * MANY + "0.1]",
    "objects": "[" + "{}," * MANY + "{}]",
    "an object of arrays": '{"method": [' + "[]," * MANY + "[]]}",
    "brackets": "[" * MANY,
    "digits": "9" * MANY,
}
LISTS = {"an array of names": ["nose"] * 9_000, "an array of texts": ["x" * 9] * 9_000, "an array of objects": [{}] * 9_000}
LARGEST_DETAIL = 1_500
MOST_MEMORY = 4 * 2**20
"""Bytes; splitting or parsing the longest of the texts takes several times as much."""


def small_payload(name: str) -> dict[str, Any]:
    """Return a valid body of an endpoint; its files are no pictures, which nobody here looks at."""
    return {field: "QUJD" if str(value).startswith("data:") else value for field, value in payload(name).items()}


def with_numbers(schema: dict[str, Any], number: object) -> Iterator[Any]:
    """Yield values of a schema that have ``number`` wherever it has a number or a string."""
    if "oneOf" in schema:
        for option in schema["oneOf"]:
            yield from with_numbers(option, number)
    elif schema.get("type") == "array":
        for item in with_numbers(schema["items"], number):
            yield [item] * max(1, schema.get("minItems", 1))
    elif schema.get("type") == "object":
        for name, inner in schema["properties"].items():
            others = {"name": "sepia"} if name == "scale" else {"method": "cache"} if name == "every" else {}
            yield from ({**others, name: value} for value in with_numbers(inner, number))
    else:
        yield number


def in_form(value: object) -> str | list[str]:
    """Return the text of a value in a form."""
    if isinstance(value, list) and not isinstance(value[0], dict):
        return ",".join(map(str, value))
    return json.dumps(value) if isinstance(value, list | dict) else str(value)


def refusal_of(schema: Schema, fields: dict[str, Any]) -> Problem | None:
    """Return the problem with which fields are refused, if they are."""
    try:
        schema.parse(fields, strict=False)
    except Problem as problem:
        return problem
    return None


def order_of(fields: dict[str, Any]) -> Order | Problem:
    """Return what fields of the OpenAI API order, or the problem with which they are refused."""
    try:
        return MODELS.order(fields)
    except Problem as problem:
        return problem


@pytest.mark.slow
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_number_of_any_size_is_taken_or_refused_by_its_name(name: str) -> None:
    schema, known = SCHEMAS[name], small_payload(name)
    for field, entry in schema.json_schema()["properties"].items():
        for number in NUMBERS:
            for value in with_numbers(entry, number):
                for sent in (value, in_form(value)):
                    problem = refusal_of(schema, {**known, field: sent})
                    if problem is not None:
                        assert (problem.status, len(problem.detail) < LARGEST_DETAIL) == (422, True), (field, str(sent)[:50])
                        assert field in {error.field for error in problem.errors} or field in ("strength", "extend", "pairs")


@pytest.mark.parametrize("field", ["seconds", "fps", "size", "num_frames", "length", "width", "height", "seed", "steps"])
def test_a_video_of_the_openai_api_has_no_number_too_large_either(field: str) -> None:
    others: tuple[dict[str, Any], ...] = (
        {},
        {"seconds": "99999"},
        {"seconds": "0.000001"},
        {"fps": 1e308},
        {"fps": 1},
        {"model": "wan22-i2v"},
    )
    for number in (*NUMBERS, *(f"{number}x{number}" for number in NUMBERS)):
        for other in others:
            fields = {"prompt": "x", **other, field: number}
            outcome = order_of(fields)
            if isinstance(outcome, Problem):
                assert (outcome.status, len(outcome.detail) < LARGEST_DETAIL) == (422, True), fields
            else:
                assert isinstance(outcome.details["seconds"], str)


FIELDS = {own: (schema, public[0]) for schema in SCHEMAS.values() for own, public in schema.names.items()}


@pytest.mark.parametrize("own", FIELDS)
def test_a_text_or_an_array_of_far_too_many_values_costs_little(own: str) -> None:
    schema, field = FIELDS[own]
    known = {name: value for name, value in small_payload(schema_name(schema)).items() if name != field}
    if own == "pairs":
        known = {name: value for name, value in known.items() if name not in schema.names["face"]}
    is_file = "binary" in str(schema.json_schema(form=True)["properties"][field])
    for what, value in {**TEXTS, **LISTS}.items():
        tracemalloc.start()
        problem = refusal_of(schema, {**known, field: value})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        if is_file and what == "digits":
            continue  # they are base64
        assert problem is not None, what
        assert (problem.status, problem.slug) == (422, "invalid-field")
        assert len(problem.errors) < 25, what
        assert len(problem.detail) < LARGEST_DETAIL, what
        assert peak < MOST_MEMORY, what


def schema_name(schema: Schema) -> str:
    """Return the name of the endpoint of a schema."""
    return next(name for name, other in SCHEMAS.items() if other is schema)


@pytest.mark.parametrize("number", range(len(costly_requests())))
def test_the_bodies_of_the_attack_are_refused(client: TestClient, number: int) -> None:
    path, body, is_form = costly_requests()[number]
    content_type = f"multipart/form-data; boundary={BOUNDARY}" if is_form else "application/json"
    response = client.post(path, content=body, headers={"content-type": content_type})
    assert response.status_code in (400, 422)
    assert len(response.content) < 10_000
