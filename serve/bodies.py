"""Reads a request's body: JSON or, where an endpoint takes it, a multipart form. Numbers, names and files are the schema's business."""

import os
import sys
from typing import Any

import pydantic_core
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from serve.errors import Problem
from serve.media.spool import Media, Spool

IN_MEMORY = 2**20
"""Bytes up to which Starlette keeps a part in memory."""


async def read_body(request: Request, *, form: bool, optional: bool = False) -> dict[str, Any]:
    """Field names -> values; files of a form are bytes, or on disk if they are large; no body at all is {} if it is ``optional``.

    Raises Problem 400, 415 or 422.
    """
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        # Not request.body(): it would keep the bytes for as long as the request lasts.
        body = b"".join([piece async for piece in request.stream()])
        return {} if optional and not body else _json_object(body)
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
        # A part may be as large as the body may: base64 in a text part too.
        async with request.form(max_files=32, max_fields=100, max_part_size=sys.maxsize) as form:
            values: dict[str, list[str | Media]] = {}
            for name, value in form.multi_items():
                values.setdefault(name, []).append(await _upload(value) if isinstance(value, UploadFile) else value)
            # A part that comes once is a value, one that comes again an array, as in JSON.
            return {name: several if several[1:] else several[0] for name, several in values.items()}
    except HTTPException as e:
        raise Problem(400, "invalid-form", f"the body is not a valid form: {e.detail}") from None


async def _upload(file: UploadFile) -> Media:
    """A part's content: large ones are on disk already, and stay there when the form is closed."""
    if (file.size or 0) <= IN_MEMORY:
        return await file.read()
    return Spool(os.fdopen(os.dup(file.file.fileno()), "rb"))
