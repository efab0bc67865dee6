"""Reads a request's body: JSON or, where an endpoint takes it, a multipart form. Numbers, names and files are the schema's business."""

from typing import Any

import pydantic_core
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from serve.errors import Problem


async def read_body(request: Request, *, form: bool) -> dict[str, Any]:
    """Field names -> values; files of a form are bytes. Raises Problem 400, 415 or 422."""
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return _json_object(await request.body())
    if form and kind == "multipart/form-data":
        return await _form(request)
    taken = "application/json or multipart/form-data" if form else "application/json"
    raise Problem(415, "unsupported-media-type", f"Content-Type is `{kind[:100]}`; send {taken}")


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        # NaN and Infinity are let through here, to be refused by the schema, which knows the field's name.
        value = pydantic_core.from_json(body, allow_inf_nan=True, cache_strings="keys")
    except ValueError as e:
        raise Problem(400, "invalid-json", f"the body is not valid JSON: {str(e)[:200]}") from None
    if not isinstance(value, dict):
        raise Problem(422, "invalid-field", "the body must be a JSON object with the fields that /docs lists")
    return value


async def _form(request: Request) -> dict[str, Any]:
    try:
        async with request.form(max_files=4, max_fields=100) as form:
            return {name: await value.read() if isinstance(value, UploadFile) else value for name, value in form.multi_items()}
    except (MultiPartException, Problem) as e:
        if isinstance(e, Problem):
            raise
        raise Problem(400, "invalid-form", f"the body is not a valid form: {e.message}") from None
