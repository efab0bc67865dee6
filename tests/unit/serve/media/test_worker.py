"""The worker's own start: it ends at once if its parent is gone before it could say so."""

import os
import socket
import subprocess
import sys


def test_a_worker_whose_parent_is_already_gone_ends() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline, other_end = os.pipe()
    os.close(other_end)
    with here, there:
        command = [sys.executable, "-m", "serve.media.worker", str(there.fileno()), str(lifeline)]
        done = subprocess.run(command, pass_fds=(there.fileno(), lifeline), timeout=60, check=False)
    os.close(lifeline)
    assert done.returncode == 0


def test_a_worker_ends_when_the_socket_is_closed() -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    lifeline, other_end = os.pipe()
    command = [sys.executable, "-m", "serve.media.worker", str(there.fileno()), str(lifeline)]
    with subprocess.Popen(command, pass_fds=(there.fileno(), lifeline)) as process:
        there.close()
        here.close()
        assert process.wait(60) == 0
    os.close(lifeline)
    os.close(other_end)
