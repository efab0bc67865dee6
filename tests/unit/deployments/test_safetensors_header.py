"""The header of a safetensors file, read without its tensors."""

import json
import struct
from io import BytesIO
from typing import Any

import pytest

from deployments import safetensors_header
from deployments.safetensors_header import Header, read_header

TENSOR = {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}


def safetensors(header: object, content: bytes = b"") -> bytes:
    """Return a file with this header, written here and not by a library."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def read(header: object, content: bytes = b"") -> Header:
    return read_header(BytesIO(safetensors(header, content)))


def test_a_header_tells_shapes_and_the_size_of_the_file() -> None:
    late = {"dtype": "BF16", "shape": [], "data_offsets": [8, 10]}
    described = {"__metadata__": {"author": "me"}, "late": late, "early": TENSOR}
    data = safetensors(described, bytes(10))
    header = read_header(BytesIO(data))
    assert header.shapes == {"early": (1, 2), "late": ()}
    assert header.dtypes == {"early": "F32", "late": "BF16"}
    assert header.metadata == {"author": "me"}
    assert header.nbytes == len(data), "the tensor that lies last need not be named last"


def test_a_file_without_tensors_ends_with_its_header() -> None:
    header = read({})
    assert (header.shapes, header.dtypes, header.metadata, header.nbytes) == ({}, {}, {}, 8 + len("{}"))


def test_only_texts_are_metadata() -> None:
    assert read({"__metadata__": {"steps": 3, "author": "me", "tags": ["a"]}}).metadata == {"author": "me"}


def test_no_tensor_is_read() -> None:
    stream = BytesIO(safetensors({"a": TENSOR}, bytes(8)))
    header = read_header(stream)
    assert stream.tell() == header.nbytes - 8
    assert read({"a": TENSOR}, b"cut") == header, "whoever reads the tensors compares the size"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "shorter than a header"),
        (bytes(7), "shorter than a header"),
        (bytes(8), "does not begin with the length"),
        (struct.pack("<Q", 1) + b"1", "does not begin with the length"),
        (b"<!doctype html><html>", "does not begin with the length"),
        (struct.pack("<Q", 2**62), "does not begin with the length"),
        (struct.pack("<Q", 100) + b"{}", "cut off"),
    ],
)
def test_what_is_no_header_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_header(BytesIO(content))


@pytest.mark.parametrize(
    "header",
    [
        b"{} and more",
        b"\xff\xfe",
        b"[[]]",
        b"null",
        b"[" * 100_000,
        {"a": {}},
        {"a": []},
        {"a": None},
        {"__metadata__": "text"},
        {"a": {**TENSOR, "shape": 3}},
        {"a": {**TENSOR, "shape": ["wide"]}},
        {"a": {**TENSOR, "data_offsets": [0]}},
        {"a": {"shape": [1], "data_offsets": [0, 8]}},
    ],
    ids=lambda header: str(header)[:40],
)
def test_a_header_that_is_not_as_the_format_has_it_is_damaged(header: Any) -> None:
    with pytest.raises(ValueError, match=r"^its header is damaged$"):
        read(header)


def test_no_more_is_read_than_the_largest_header_has(monkeypatch: pytest.MonkeyPatch) -> None:
    data = safetensors({"a": TENSOR})
    monkeypatch.setattr(safetensors_header, "MAX_BYTES", len(data) - 8)
    assert read_header(BytesIO(data)).shapes == {"a": (1, 2)}
    monkeypatch.setattr(safetensors_header, "MAX_BYTES", len(data) - 9)
    with pytest.raises(ValueError, match="does not begin with the length"):
        read_header(BytesIO(data))
