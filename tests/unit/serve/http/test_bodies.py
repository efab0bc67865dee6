import gzip
import io
import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request

from serve.http.bodies import IN_MEMORY_BYTES, read_body
from serve.media.spool import Spool
from serve.problems import Problem
from tests.unit.serve.http.asgi import Exchange, body_messages, http_scope
from tests.unit.serve.media.make_media import unnamed_files

BOUNDARY = "the-boundary"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def request_with(content_type: str | None, *pieces: bytes) -> Request:
    """Return a POST request. Its `app` has Starlette raise refusals, as in RequestBoundary."""
    headers = {} if content_type is None else {"content-type": content_type}
    return Request({**http_scope(headers=headers), "app": None}, Exchange(body_messages(*pieces)).receive)


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """Return a multipart body of parts that are given as (name, file name, content)."""
    body = io.BytesIO()
    for name, file, content in parts:
        disposition = f'form-data; name="{name}"' + ("" if file is None else f'; filename="{file}"')
        body.write(f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode() + content + b"\r\n")
    return body.getvalue() + f"--{BOUNDARY}--\r\n".encode()


async def refusal(request: Request, **options: Any) -> Problem:
    """Return the problem that reading the body raises."""
    with pytest.raises(Problem) as refused:
        await read_body(request, **{"form": True, **options})
    return refused.value


@pytest.mark.parametrize(
    "content_type", [None, "application/json", "Application/JSON; charset=utf-8", "application/merge-patch+json"]
)
async def test_a_json_object_is_read_by_its_fields(content_type: str | None) -> None:
    request = request_with(content_type, b'{"prompt": "caf\xc3', b'\xa9", "steps": 2, "seed": null}')
    assert await read_body(request, form=False) == {"prompt": "caf\u00e9", "steps": 2, "seed": None}


async def test_not_a_number_passes_so_that_the_schema_can_name_the_field() -> None:
    fields = await read_body(request_with(None, b'{"cfg": NaN, "fps": -Infinity}'), form=False)
    assert (str(fields["cfg"]), fields["fps"]) == ("nan", float("-inf"))


@pytest.mark.parametrize(
    "body",
    [b"{", b"", b"[" * 5_000 + b"]" * 5_000, b'{"a": ' * 10_000, b'{"prompt": "\\ud800"}', b"\xff"],
    ids=["cut off", "empty", "deep array", "deep object", "half of a surrogate pair", "no UTF-8"],
)
async def test_malformed_json_is_a_400(body: bytes) -> None:
    problem = await refusal(request_with("application/json", body))
    assert (problem.status, problem.slug) == (400, "invalid-json")
    assert problem.detail.startswith("the body is not valid JSON: ")
    assert len(problem.detail) < 300


@pytest.mark.parametrize(
    "body",
    [
        *(b"[" * 100_000 + b"]" * 100_000, b'{"a": ' * 100_000, b'{"x": [' + b"[]," * 10_000 + b"[]]}"),
        b'{"image": "' + b"A" * 2**21 + b'", "x": [' + b"0," * 10_000 + b"0]}",
    ],
    ids=["deep array", "deep object", "many arrays", "many numbers behind an image"],
)
async def test_json_of_too_many_values_is_refused_before_it_is_parsed(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.http.bodies.pydantic_core", None)
    problem = await refusal(request_with("application/json", body))
    assert (problem.status, problem.slug) == (400, "invalid-json")
    assert problem.detail == "the body has more than 10000 of the characters `[`, `{` and `,`: send fewer values"


async def test_prompts_may_have_many_commas() -> None:
    fields = {"prompt": "," * 5000, "negative_prompt": "," * 4900, "image": "A" * 2**21}
    assert await read_body(request_with(None, json.dumps(fields).encode()), form=False) == fields


async def test_large_json_is_parsed_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[bool] = []

    def parse(body: bytes, **_: object) -> dict[str, int]:
        threads.append(threading.current_thread() is threading.main_thread())
        return {"size": len(body)}

    monkeypatch.setattr("serve.http.bodies.pydantic_core", SimpleNamespace(from_json=parse))
    for size in (2**20, 2**20 + 1):
        assert await read_body(request_with(None, bytes(size)), form=False) == {"size": size}
    assert threads == [True, False]


@pytest.mark.parametrize("body", [b"[]", b'"prompt"', b"7", b"null"])
async def test_json_that_is_not_an_object_is_a_422(body: bytes) -> None:
    problem = await refusal(request_with("application/json", body))
    assert (problem.status, problem.slug) == (422, "invalid-field")
    assert "must be a JSON object" in problem.detail


async def test_a_body_may_be_absent_where_it_is_optional() -> None:
    assert await read_body(request_with(None, b""), form=False, optional=True) == {}
    assert await read_body(request_with(None, b'{"models": []}'), form=False, optional=True) == {"models": []}
    assert (await refusal(request_with(None, b"{"), optional=True)).slug == "invalid-json"


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "GZIP", "gzip, identity"])
async def test_a_compressed_body_is_a_415_that_says_so(coding: str) -> None:
    request = request_with("application/json", gzip.compress(b"{}"))
    request.scope["headers"].append((b"content-encoding", coding.encode()))
    problem = await refusal(request)
    assert (problem.status, problem.slug) == (415, "unsupported-media-type")
    assert problem.detail == f"Content-Encoding is `{coding.lower()}`; send the body uncompressed"


async def test_another_media_type_is_a_415_that_lists_the_accepted_ones() -> None:
    problem = await refusal(request_with("application/x-www-form-urlencoded", b"prompt=x"))
    assert (problem.status, problem.slug) == (415, "unsupported-media-type")
    assert "`application/x-www-form-urlencoded`; send application/json or multipart/form-data" in problem.detail
    problem = await refusal(request_with(FORM, form(("prompt", None, b"x"))), form=False)
    assert problem.status == 415
    assert problem.detail.endswith("send application/json")
    assert len((await refusal(request_with("x" * 10_000, b""))).detail) < 200


async def test_a_form_has_text_and_files() -> None:
    body = form(("faces", None, b"all"), ("source_image", "a.png", b"\x00\x01"), ("reference_image", "", b"no name"))
    fields = await read_body(request_with(FORM, body), form=True)
    assert fields == {"faces": "all", "source_image": b"\x00\x01", "reference_image": b"no name"}


async def test_a_part_that_is_sent_again_becomes_an_array() -> None:
    body = form(("reference_image", "a", b"one"), ("reference_image", "b", b"two"), ("reference_image", None, b"three"))
    assert await read_body(request_with(FORM, body), form=True) == {"reference_image": [b"one", b"two", "three"]}


async def test_what_is_left_empty_in_a_form_is_null() -> None:
    empty = [("target_face", "", b""), ("faces", None, b""), ("source_image", "a.png", b"")]
    fields = await read_body(request_with(FORM, form(*empty)), form=True)
    assert fields == {"target_face": None, "faces": None, "source_image": b""}
    body = form(("face", None, b""), ("face", "a", b"1"), ("face", "", b""), ("other", "b", b"2"), ("other", "c", b"3"))
    assert await read_body(request_with(FORM, body), form=True) == {"face": b"1", "other": [b"2", b"3"]}


@pytest.mark.parametrize("charset", ["UTF-8", "utf8", '"utf-8"'])
async def test_text_of_a_form_is_utf_8(charset: str) -> None:
    request = request_with(f"{FORM}; charset={charset}", form(("prompt", None, "caf\u00e9".encode())))
    assert await read_body(request, form=True) == {"prompt": "caf\u00e9"}


@pytest.mark.parametrize("charset", ["latin-1", "punycode", "undefined", "utf-16", "nonsense", '""'])
async def test_a_form_in_another_encoding_is_refused_before_it_is_read(charset: str) -> None:
    problem = await refusal(request_with(f"{FORM}; charset={charset}"))
    assert (problem.status, problem.detail) == (400, "the body is not a valid form: its charset must be UTF-8")


async def test_text_that_is_not_utf_8_is_refused_and_the_files_are_freed() -> None:
    before = unnamed_files()
    body = form(("source_image", "a.png", bytes(2 * IN_MEMORY_BYTES)), ("prompt", None, b"caf\xe9"))
    problem = await refusal(request_with(FORM, body))
    assert (problem.status, problem.slug) == (400, "invalid-form")
    assert problem.detail.endswith("the field `prompt` is not UTF-8")
    assert unnamed_files() == before


async def test_a_large_file_is_on_disk_and_outlives_the_form() -> None:
    before = unnamed_files()
    content = bytes(range(256)) * (IN_MEMORY_BYTES // 256) + b"more"
    body = form(("source_video", "a.mp4", content), ("reference_image", "b.jpg", content[:IN_MEMORY_BYTES]))
    request = request_with(FORM, *(body[i : i + 65_536] for i in range(0, len(body), 65_536)))
    fields = await read_body(request, form=True)
    assert isinstance(fields["source_video"], Spool)
    assert fields["source_video"].read() == content
    assert fields["reference_image"] == content[:IN_MEMORY_BYTES]
    assert unnamed_files() == before + 1
    fields.clear()
    assert unnamed_files() == before


async def test_a_text_part_may_hold_megabytes_of_base64() -> None:
    body = form(("source_image", None, b"A" * 3_000_000))
    fields = await read_body(request_with(FORM, body), form=True)
    assert fields == {"source_image": "A" * 3_000_000}


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("multipart/form-data", b"x", "boundary"),
        (FORM, b"--x\r\nnot a form", "Invalid multipart data"),
        (FORM, form(*[("file", "a", b"x")] * 33), "Too many files"),
        (FORM, form(*[("field", None, b"x")] * 101), "Too many fields"),
    ],
    ids=["no boundary", "another boundary", "33 files", "101 fields"],
)
async def test_a_broken_form_is_a_400_with_the_reason(content_type: str, body: bytes, reason: str) -> None:
    problem = await refusal(request_with(content_type, body))
    assert (problem.status, problem.slug) == (400, "invalid-form")
    assert problem.detail.startswith("the body is not a valid form: ")
    assert reason in problem.detail


@pytest.mark.parametrize("extra", [b";" * 3_000, b"\r\nX-A: " + b"b" * 3_000, b"\r\nX-A: b" * 300, b";" * 100_000])
async def test_the_headers_of_a_part_have_a_limit(extra: bytes) -> None:
    head = b"Content-Disposition: form-data; name=x" + extra
    body = b"--%b\r\n%b\r\n\r\nx\r\n--%b--\r\n" % (BOUNDARY.encode(), head, BOUNDARY.encode())
    problem = await refusal(request_with(FORM, body))
    assert (problem.status, problem.slug) == (400, "invalid-form")
