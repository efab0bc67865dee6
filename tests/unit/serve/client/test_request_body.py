"""The bodies of requests, first and sent again."""

import io
import json
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import httpx
import pytest

from deployments.wire import LoraChoice
from serve.client.request_body import encode_body
from serve.media.samples import jpeg, portrait
from tests.unit.serve.client.both_clients import Kind, connected
from tests.unit.serve.client.job_answers import DROPPED, ID, NOWHERE, record
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import make_client
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server

pytestmark = pytest.mark.usefixtures("pauses")


def sent(fields: dict[str, Any], times: int = 1) -> list[bytes]:
    """Return the bodies of so many requests with ``fields``, of which each file is still open."""
    with ExitStack() as files:
        options = encode_body(fields, files)
        return [httpx.Request("POST", "http://service", **options).read() for _ in range(times)]


def parts_of(body: bytes) -> list[tuple[str, bytes]]:
    """Return the name and the content of each part of a form."""
    boundary = body.partition(b"\r\n")[0]
    found = []
    for part in body.split(boundary)[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        found.append((head.partition(b'name="')[2].partition(b'"')[0].decode(), content.removesuffix(b"\r\n")))
    return found


class Pipe(io.RawIOBase):
    """A file that can be read once."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def seekable(self) -> bool:
        return False

    def read(self, size: int = -1) -> bytes:
        data, self._data = self._data, b""
        return data


def test_without_files_the_body_is_json() -> None:
    fields = {"prompt": "a cät", "seed": 7, "negative_prompt": None, "loras": [{"name": "ink"}], "faces": ["left"]}
    assert json.loads(sent(fields)[0]) == fields
    assert sent({}) == [b"{}"]


@pytest.mark.parametrize(
    "file",
    [b"abc", bytearray(b"abc"), memoryview(b"abc"), io.BytesIO(b"abc"), Pipe(b"abc")],
    ids=lambda file: type(file).__name__,
)
def test_whatever_holds_bytes_is_sent_whole_each_time(file: bytes | IO[bytes]) -> None:
    first, second = sent({"image": file, "seed": 3}, times=2)
    assert first == second
    assert parts_of(first) == [("seed", b"3"), ("image", b"abc")]


def test_a_list_of_files_is_sent_as_several_in_their_order(tmp_path: Path) -> None:
    face = tmp_path / "face.jpg"
    face.write_bytes(b"one")
    assert parts_of(sent({"reference_image": [face, b"two", io.BytesIO(b"three")]})[0]) == [
        ("reference_image", b"one"),
        ("reference_image", b"two"),
        ("reference_image", b"three"),
    ]
    with pytest.raises(TypeError, match="reference_image: files and other values cannot be sent in one list"):
        sent({"reference_image": [face, "data:image/png;base64,AAAA"]})


def test_beside_a_file_objects_are_json_and_nothing_is_left_out_but_none() -> None:
    objects: dict[str, Any] = {
        "loras": [{"name": "ink", "scale": 0.8}, {"name": "film"}],
        "acceleration": {"method": "cache", "every": 3},
    }
    plain = {"image": b"abc", "faces": ("left", "right"), "restore_face": False, "cfg": 2.5, "seed": None}
    parts = parts_of(sent({**objects, **plain})[0])
    assert parts[2:] == [
        ("faces", b"left"),
        ("faces", b"right"),
        ("restore_face", b"false"),
        ("cfg", b"2.5"),
        ("image", b"abc"),
    ]
    assert {name: json.loads(text) for name, text in parts[:2]} == objects


def test_the_service_reads_the_objects_that_are_sent_beside_a_file() -> None:
    graph = FakeGraph()
    fields = {
        "reference_image": jpeg(portrait()),
        "loras": {"name": "ink", "scale": 0.5},
        "acceleration": {"method": "cache", "every": 3},
    }
    with ExitStack() as files, make_client(graph) as service:
        options = encode_body({"prompt": "a cat", **fields}, files)
        assert service.post("/wan2.6-i2v", **options).status_code == 200
    request = graph.wan26.requests[-1]
    assert request.loras == (LoraChoice("ink", 0.5),)
    assert (request.acceleration, request.cache_every) == ("cache", 3)


def test_the_paths_are_closed_with_the_request_even_if_another_one_cannot_be_read(tmp_path: Path) -> None:
    face = tmp_path / "face.jpg"
    face.write_bytes(b"abc")
    with ExitStack() as files:
        options = encode_body({"image": face}, files)
        opened: IO[bytes] = options["files"][0][1][1]
        with pytest.raises(FileNotFoundError):
            encode_body({"image": face, "face_image": tmp_path / "none.jpg"}, files)
        assert not opened.closed
    assert opened.closed


@pytest.mark.parametrize("broken", [DROPPED, Scripted(b'{"id": "5f0c"}', 202, cut=3), problem(502, "gateway")])
def test_a_submit_that_breaks_off_is_sent_again_with_the_same_key_and_body(
    kind: Kind, broken: Scripted, tmp_path: Path
) -> None:
    face = tmp_path / "face.jpg"
    face.write_bytes(b"\xff\xd8 a face \xff")
    fields = {"face_image": face, "source_image": b"a picture", "restore_face": False, "seed": 3, "nothing": None}
    with (
        face.open("rb") as opened,
        scripted_server(broken, DROPPED, record("queued", 202)) as server,
        connected(kind, server.url) as client,
    ):
        # The server has answered nothing yet, but the connection was made.
        assert client.submit("image-faceswap", fields, reference_image=opened, faces=["left", "right"]).id == ID
    first, *others = server.requests
    assert len(others) == 2
    assert len(first.headers["idempotency-key"]) == 32
    for other in others:
        assert (other.raw, other.headers["idempotency-key"]) == (first.raw, first.headers["idempotency-key"])
        assert other.headers["content-type"] == first.headers["content-type"]
    for name, value in (("face_image", face.read_bytes()), ("reference_image", face.read_bytes()), ("seed", b"3")):
        assert f'name="{name}"'.encode() in first.raw
        assert b"\r\n\r\n" + value + b"\r\n" in first.raw
    assert b"\r\n\r\nfalse\r\n" in first.raw
    assert first.raw.count(b'name="faces"') == 2
    assert b"nothing" not in first.raw


def test_a_value_that_cannot_be_sent_is_named(kind: Kind) -> None:
    with connected(kind, NOWHERE) as client:
        with pytest.raises(TypeError, match="prompt: a set cannot be sent in a form"):
            client.submit("wan2.6", prompt=set(), reference_image=b"x")
        with pytest.raises(FileNotFoundError):
            client.submit("wan2.6", reference_image=Path("nope.jpg"))
