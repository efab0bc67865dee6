"""Messages keep their boundaries and carry descriptors, and notice the end of the other side."""

import os
import socket

import pytest

from serve.media.workers.messages import receive_message, send_message


def test_messages_arrive_one_by_one_with_their_descriptors() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    with here, there:
        send_message(here, {"number": 1}, [read])
        send_message(here, {"number": 2, "text": "é"})
        first, (received,) = receive_message(there)
        assert first == {"number": 1}
        os.write(write, b"x")
        assert os.read(received, 1) == b"x"
        assert receive_message(there) == ({"number": 2, "text": "é"}, [])
    for fd in (read, write, received):
        os.close(fd)


def test_long_text_is_cut_and_not_refused_by_the_socket() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        send_message(here, {"detail": "\x00" * 10**6})
        message, _ = receive_message(there)
        assert 0 < len(message["detail"]) < 10_000


def test_the_end_of_the_other_side_is_an_eof() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    here.close()
    with there, pytest.raises(EOFError):
        receive_message(there)
