"""The worker ends with its parent, and blames the file for whatever happens while it is read."""

import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from serve.media.decode.source import TimedFrames
from serve.media.errors import MediaError
from serve.media.workers.worker import _Session


@pytest.mark.slow
def test_a_worker_whose_parent_is_already_gone_ends() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline, other_end = os.pipe()
    os.close(other_end)
    with here, there:
        command = [sys.executable, "-m", "serve.media.workers.worker", str(there.fileno()), str(lifeline)]
        done = subprocess.run(command, pass_fds=(there.fileno(), lifeline), timeout=60, check=False)
    os.close(lifeline)
    assert done.returncode == 0


@pytest.mark.slow
def test_a_worker_ends_when_the_socket_is_closed() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline, other_end = os.pipe()
    command = [sys.executable, "-m", "serve.media.workers.worker", str(there.fileno()), str(lifeline)]
    with subprocess.Popen(command, pass_fds=(there.fileno(), lifeline)) as process:
        there.close()
        here.close()
        assert process.wait(60) == 0
    os.close(lifeline)
    os.close(other_end)


def chunks_that_fail(error: Exception) -> Iterator[TimedFrames]:
    if isinstance(error, ValueError):
        np.stack([np.zeros((2, 3)), np.zeros((3, 2))])
    yield from ()
    raise error


@pytest.mark.parametrize("error", [ValueError(), RuntimeError("no"), AssertionError(), ZeroDivisionError(), StopIteration()])
def test_whatever_a_file_makes_the_code_raise_is_logged_and_blamed_on_it(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    session = _Session()
    session._chunks = chunks_that_fail(error)
    with caplog.at_level(logging.WARNING), pytest.raises(MediaError, match="cannot be decoded"):
        session.chunk({"skip": 0}, [])
    assert "Traceback" in caplog.text
    assert "chunks_that_fail" in caplog.text


def test_a_lack_of_memory_is_not_taken_for_damage() -> None:
    def chunks() -> Iterator[TimedFrames]:
        yield from ()
        raise MemoryError

    session = _Session()
    session._chunks = chunks()
    with pytest.raises(MemoryError):
        session.chunk({"skip": 0}, [])
