"""Reads a request's body: JSON or a multipart form.

The names, types and files of the fields are checked later, by the endpoint's schema.
"""

import asyncio
import os
import sys
from typing import Any

import pydantic_core
from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from serve.media.spool import Media, Spool
from serve.problems import Problem

REQUEST_TYPES = ("application/json", "multipart/form-data")
"""The media types of the requests of every endpoint that makes something."""

IN_MEMORY_BYTES = 2**20
"""The size up to which Starlette keeps a form part in memory."""

MAX_JSON_MARKS = 10_000
"""Number of `[`, `{` and `,` in a JSON body: each can stand for a value of many times its size."""
IN_THREAD_BYTES = 2**20
"""The size from which a JSON body is parsed in a thread."""
_COUNTED_BYTES = 2**16
MAX_PART_HEAD_BYTES = 2**11
"""Size of all headers of a part of a form. The time to read a Content-Disposition grows with the
square of its length, and the library's own limit is twice as much for each header."""


async def read_body(request: Request, *, form: bool, optional: bool = False) -> dict[str, Any]:
    """Return the fields of a body by name.

    Files of a form come as bytes, or as a Spool where they are large enough to be on disk. With
    ``form`` a multipart body is accepted too; with ``optional`` an absent body has no fields.
    Raises a 400, 415 or 422 problem.
    """
    coding = request.headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        raise Problem(415, "unsupported-media-type", f"Content-Encoding is `{coding[:100]}`; send the body uncompressed")
    media_type = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if media_type == "application/json" or media_type.endswith("+json"):
        # request.body() would keep the bytes for as long as the request lasts.
        body = b"".join([piece async for piece in request.stream()])
        if optional and not body:
            return {}
        return _parse_json(body) if len(body) <= IN_THREAD_BYTES else await asyncio.to_thread(_parse_json, body)
    if form and media_type == "multipart/form-data":
        return await _read_form(request)
    accepted = " or ".join(REQUEST_TYPES if form else REQUEST_TYPES[:1])
    raise Problem(415, "unsupported-media-type", f"Content-Type is `{media_type[:100]}`; send {accepted}")


def _parse_json(body: bytes) -> dict[str, Any]:
    _check_marks(body)
    try:
        # NaN and Infinity pass here, because the schema that refuses them knows the field's name.
        value = pydantic_core.from_json(body, allow_inf_nan=True, cache_strings="keys")
    except ValueError as e:
        raise Problem(400, "invalid-json", f"the body is not valid JSON: {str(e)[:200]}") from None
    if not isinstance(value, dict):
        raise Problem(422, "invalid-field", "the body must be a JSON object with the fields that /docs lists")
    return value


def _check_marks(body: bytes) -> None:
    """Raise a 400 problem for a body with more values than any request needs.

    Media in base64 has none of the marks, and prompts may have thousands of commas.
    """
    marks = 0
    for start in range(0, len(body), _COUNTED_BYTES):  # in parts, so that the count ends early
        marks += sum(body.count(mark, start, start + _COUNTED_BYTES) for mark in (b"[", b"{", b","))
        if marks > MAX_JSON_MARKS:
            raise Problem(
                400,
                "invalid-json",
                f"the body has more than {MAX_JSON_MARKS} of the characters `[`, `{{` and `,`: send fewer values",
            )


async def _read_form(request: Request) -> dict[str, Any]:
    try:
        _check_charset(request.headers["content-type"])
        # A part may be as large as the whole body: a text part can hold base64.
        parser = _Parser(request.headers, request.stream(), max_files=32, max_fields=100, max_part_size=sys.maxsize)
        form = await parser.parse()
    except MultiPartException as e:
        raise Problem(400, "invalid-form", f"the body is not a valid form: {e.message}") from None
    try:
        values: dict[str, list[str | Media]] = {}
        for name, value in form.multi_items():
            several = values.setdefault(name, [])
            if isinstance(value, UploadFile):
                # Pages send a part without name and content where no file was chosen.
                several += [await _read_upload(value)] if value.filename or value.size else []
            else:
                several += [value] if value else []
    finally:
        await form.close()
    # As in JSON, a field that is sent once is a value, one that is sent again an array, and one
    # that is left empty null.
    return {name: several if several[1:] else next(iter(several), None) for name, several in values.items()}


def _check_charset(content_type: str) -> None:
    """Refuse a form that is declared to be in another encoding than UTF-8.

    Starlette would decode its text with any of Python's codecs, and some of them take minutes.
    """
    charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):
        raise MultiPartException("its charset must be UTF-8")


class _Parser(MultiPartParser):
    """Starlette's parser, with limits on the headers of a part and on the encoding of its text.

    Starlette would read text that is not UTF-8 as Latin-1.
    """

    def on_part_begin(self) -> None:
        self._head_bytes = 0
        super().on_part_begin()

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        super().on_header_field(data, start, end)

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        super().on_header_value(data, start, end)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_PART_HEAD_BYTES:
            raise MultiPartException(f"the headers of a part have more than {MAX_PART_HEAD_BYTES} bytes")

    def on_part_end(self) -> None:
        part = self._current_part
        if part.file is None:
            try:
                part.data.decode()
            except UnicodeDecodeError:
                raise MultiPartException(f"the field `{part.field_name[:100]}` is not UTF-8") from None
        super().on_part_end()


async def _read_upload(file: UploadFile) -> Media:
    """Return a part's content; a large one is on disk already and outlives the form."""
    if (file.size or 0) <= IN_MEMORY_BYTES:
        return await file.read()
    return Spool(os.dup(file.file.fileno()))
