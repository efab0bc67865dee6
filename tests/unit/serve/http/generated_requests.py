"""Requests as our own OpenAPI document describes them, and some that it does not allow."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import PIL.Image
from hypothesis import strategies as st

Json = dict[str, Any]
JOB = "{job}"
"""In a URL, the place of the id of a job."""
CHANCE_WRONG = 6
"""One of so many bodies has wrong fields."""


def _picture(kind: str, size: tuple[int, int]) -> str:
    buffer = io.BytesIO()
    PIL.Image.new("RGB", size, "orange").save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


PICTURES = tuple(_picture(kind, size) for kind in ("JPEG", "PNG", "WEBP") for size in ((64, 48), (48, 64)))
NO_PICTURES = ("", "x", "data:image/png;base64,AAAA", "https://example.org/cat.png", PICTURES[0][:-200], "data:,")
EXTREMES = (10**400, -(10**400), 2**63, 1e308, -1e308, -0.0, 5e-324, "1" + "0" * 400, "1e308", "1e999", "NaN", "," * 1000)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(EXTREMES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
PREFER = (
    "respond-async",
    "respond-async, handling=strict",
    "wait=0",
    "wait=60",
    "handling=strict",
    "wait=soon",
    "return=minimal",
)


@dataclass(frozen=True)
class Call:
    """A request, and the operation that it calls."""

    method: str
    path: str
    operation: Json = field(repr=False)
    url: str
    headers: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    body: Json | None = None
    form: bool = False
    """Whether the body is sent as a form."""
    valid: bool = True
    """Whether the document allows the body."""
    job: int = 0
    """Which of the jobs that there are, from the latest one, takes the place of ``JOB``."""


def _of_schema(schema: Json, *, picture: bool) -> st.SearchStrategy[Any]:
    """Return values that a schema of a field allows; strings of a ``picture`` are data URIs."""
    if "oneOf" in schema:
        return st.one_of([_of_schema(option, picture=picture) for option in schema["oneOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind, low, high = schema.get("type"), schema.get("minimum"), schema.get("maximum")
    if kind == "integer":
        step = schema.get("multipleOf", 1)
        return st.integers(-(-(low or 0) // step), (10**6 if high is None else high) // step).map(lambda number: number * step)
    if kind == "number":
        return st.floats(low or 0, high or 1e6, exclude_min=bool(schema.get("exclusiveMinimum")), allow_nan=False)
    if kind == "boolean":
        return st.booleans()
    if kind == "array":
        items = _of_schema(schema["items"], picture=picture)
        fewest = schema.get("minItems", 0)
        return st.lists(items, min_size=fewest, max_size=max(fewest, min(schema.get("maxItems", 3), 3)))
    if kind == "object":
        return _fields(schema, pictures=())
    if picture:
        return st.sampled_from(PICTURES)
    # A surrogate cannot be sent in UTF-8.
    letters = st.characters(exclude_categories=["Cs"])
    return st.text(letters, min_size=max(1, schema.get("minLength", 0)), max_size=min(schema.get("maxLength", 30), 30))


@st.composite
def _fields(draw: st.DrawFn, schema: Json, *, pictures: Sequence[str]) -> Json:
    """Return an object that a schema allows: its required fields and up to two others.

    Fields that exclude each other would have most objects with all of them refused.
    """
    properties: Json = schema.get("properties", {})
    required = [name for name in properties if name in schema.get("required", ())]
    others = [name for name in properties if name not in required]
    chosen = draw(st.lists(st.sampled_from(others), max_size=2, unique=True)) if others else []
    return {name: draw(_of_schema(properties[name], picture=name in pictures)) for name in (*required, *chosen)}


@st.composite
def bodies(draw: st.DrawFn, operation: Json) -> tuple[Json, bool]:
    """Return a JSON body for an operation, and whether the document allows it."""
    content = operation["requestBody"]["content"]
    schema = content["application/json"]["schema"]
    form = content.get("multipart/form-data", {}).get("schema", {}).get("properties", {})
    pictures = [name for name, entry in form.items() if "binary" in str(entry)]
    body = draw(_fields(schema, pictures=pictures))
    if "input_reference" in body:
        body["input_reference"] = {"image_url": draw(st.sampled_from(PICTURES))}
    if draw(st.integers(1, CHANCE_WRONG)) > 1:
        return body, True
    names = list(schema.get("properties", {})) or ["field"]
    for name in draw(st.lists(st.sampled_from(names) | st.text(min_size=1, max_size=8), min_size=1, max_size=3)):
        if draw(st.booleans()):
            body.pop(name, None)
        else:
            body[name] = draw(st.sampled_from(NO_PICTURES) if name in pictures else ANYTHING)
    return body, False


def makes(method: str, path: str) -> bool:
    """Return whether an operation makes something of what is sent."""
    return method == "post" and path not in ("/warm", "/jobs/{id}/cancel")


@st.composite
def calls(draw: st.DrawFn, document: Json) -> Call:
    """Return a call of any operation of ``document``."""
    operations = [
        (path, method, operation)
        for path, methods in sorted(document["paths"].items())
        for method, operation in methods.items()
    ]
    # Most operations only read; those that make something are called more often.
    making = [entry for entry in operations if makes(entry[1], entry[0])]
    path, method, operation = draw(st.sampled_from(making if draw(st.booleans()) else operations))
    headers: dict[str, str] = {}
    params: dict[str, str] = {}
    url = path
    for parameter in operation.get("parameters", ()):
        name, schema = parameter["name"], parameter["schema"]
        wrong = draw(st.integers(1, 8)) == 1
        if parameter["in"] == "path":
            known = schema.get("enum", [JOB] * 5 + ["0" * 32])
            url = url.replace(f"{{{name}}}", draw(st.sampled_from(known)) if not wrong else "no-such-id")
        elif not draw(st.booleans()):
            continue
        elif name == "Prefer":
            headers[name] = draw(st.sampled_from(PREFER))
        elif name == "Webhook-Url":
            if wrong:
                headers[name] = "https://hooks.example.org/done"
        elif parameter["in"] == "header":
            headers[name] = draw(st.sampled_from(["bytes=0-9", "bytes=5-", "1", "k-1", "k-2", "k-3", "bytes=x", "-"]))
        else:
            value = draw(
                ANYTHING if wrong else _of_schema({**schema, "maximum": min(schema.get("maximum", 1), 50)}, picture=False)
            )
            params[name] = str(value)
    if draw(st.integers(1, 6)) == 1:
        headers["Accept"] = draw(
            st.sampled_from(["*/*", "video/mp4", "image/webp", "image/gif", "application/json", "text/html"])
        )
    body, valid = draw(bodies(operation)) if "requestBody" in operation else (None, True)
    form = "multipart/form-data" in operation.get("requestBody", {}).get("content", {}) and draw(st.booleans())
    return Call(method, path, operation, url, headers, params, body, form=form, valid=valid, job=draw(st.integers(0, 19)))
