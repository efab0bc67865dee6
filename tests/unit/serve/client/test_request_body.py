"""The bodies of requests, first and sent again."""

from pathlib import Path

import pytest

from tests.unit.serve.client.both_clients import Kind, connected
from tests.unit.serve.client.job_answers import DROPPED, ID, NOWHERE, record
from tests.unit.serve.scripted_server import Scripted, problem, scripted_server

pytestmark = pytest.mark.usefixtures("pauses")


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
        with pytest.raises(TypeError, match="prompt: a dict cannot be sent in a form"):
            client.submit("wan2.6", prompt={}, reference_image=b"x")
        with pytest.raises(FileNotFoundError):
            client.submit("wan2.6", reference_image=Path("nope.jpg"))
