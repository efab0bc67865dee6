"""The requests that the attacks send, and what they make of the answers."""

import json
import resource
import socket

import pytest

from loadtest.attacks import KEY, Tally, authorization, large_webp, long_gif, post, progressive_jpeg, read_status, readable
from loadtest.body_attacks import BOUNDARY, comma_json, form, many_form_fields, many_json_fields, nested_json
from loadtest.connection_attacks import MOST_CONNECTIONS, SPARE_FILES, Held, connection_count
from serve.media.decode.jpeg import count_scans


@pytest.mark.parametrize(
    ("file_limit", "count"),
    [(20_000, MOST_CONNECTIONS), (MOST_CONNECTIONS + SPARE_FILES - 1, MOST_CONNECTIONS - 1), (SPARE_FILES, 0), (16, 0)],
)
def test_the_number_of_connections_leaves_files_for_everything_else(file_limit: int, count: int) -> None:
    assert connection_count(file_limit) == count


def test_a_request_is_complete() -> None:
    head, _, body = post("/a", b"{}", authorization()).partition(b"\r\n\r\n")
    assert body == b"{}"
    assert head.split(b"\r\n")[0] == b"POST /a HTTP/1.1"
    assert f"Authorization: Bearer {KEY}".encode() in head.split(b"\r\n")
    head, _, body = form("/a", b"xyz").partition(b"\r\n\r\n")
    assert f"Content-Type: multipart/form-data; boundary={BOUNDARY}".encode() in head.split(b"\r\n")
    assert (body, head.count(b"Content-Type")) == (b"xyz", 1)


def test_costly_bodies_are_what_they_say() -> None:
    assert len(json.loads(many_json_fields(1000))) == 1000
    assert many_form_fields(30).count(b"form-data") == 30
    assert many_form_fields(30).endswith(f"--{BOUNDARY}--\r\n".encode())
    assert json.loads(comma_json(1000))["prompt"] == [0] * 1000
    assert nested_json(3) == b'{"prompt": [[[]]]}'


@pytest.mark.slow
def test_costly_files_are_small() -> None:
    assert count_scans(progressive_jpeg(50), 1000) > 50
    assert len(large_webp()) < 2**20
    assert len(long_gif()) < 2**20


def test_an_answer_is_counted_by_its_status() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 431 Too large\r\n\r\n")
        assert readable([ours], 60) == [ours]
        assert read_status(ours) == "431"
        theirs.close()
        assert read_status(ours) == "closed"


def test_connections_are_held_until_they_are_answered() -> None:
    tally = Tally()
    with socket.create_server(("127.0.0.1", 0)) as server:
        held = Held(server.getsockname(), tally)
        assert held.open(b"a")
        assert held.open(b"a")
        accepted = [server.accept()[0] for _ in range(2)]
        assert readable(held.connections, 0) == []
        accepted[0].sendall(b"HTTP/1.1 408 Too slow\r\n\r\n")
        assert len(readable(held.connections, 60)) == 1
        held.let_go_of_answered()
        assert (tally.answers, len(held.connections)) == ({"408": 1}, 1)
        held.send(b"b")
        held.close_all()
        with accepted[1] as other:
            received = b""
            while part := other.recv(9):
                received += part
            assert received == b"ab"
        accepted[0].close()
    assert not held.open(b"a")
    assert tally.answers == {"408": 1, "refused": 1}


def test_files_of_any_number_can_be_looked_at() -> None:
    """With a thousand connections, the numbers are beyond what `select` takes."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft <= 1100:
        pytest.skip("the limit of open files is too small")
    pairs = [socket.socketpair() for _ in range(540)]
    try:
        assert max(pair[0].fileno() for pair in pairs) > 1023
        pairs[-1][1].sendall(b"x")
        assert readable([pair[0] for pair in pairs], 60) == [pairs[-1][0]]
    finally:
        for pair in pairs:
            for end in pair:
                end.close()
