"""A worker process that reads callers' files, as its parent sees it."""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from serve.media.errors import MediaError, MediaTooLarge
from serve.media.workers.messages import Message, receive_message, send_message
from serve.media.workers.shared_array import Bytes, map_array

_ERRORS = {"MediaError": MediaError, "MediaTooLarge": MediaTooLarge}
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # glibc keeps up to 32 MiB for the next picture. Given back each time, the page faults of taking
    # it again would take three times as long as decoding a portrait.
    "MALLOC_MMAP_THRESHOLD_": str(16 * 2**20),
    "MALLOC_TOP_PAD_": str(8 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(32 * 2**20),
}


DECODER = "serve.media.workers.worker"
"""The module that decodes callers' files."""
Respond = Callable[[Message], Message]
"""Answers what the process asks in the middle of a request."""


class WorkerDied(Exception):
    """The process ended while it worked on a file; ``signal_name`` says how, such as "SIGKILL"."""

    def __init__(self, signal_name: str) -> None:
        super().__init__(f"the decoder was ended by {signal_name}")
        self.signal_name = signal_name


class WorkerProcess:
    """One process. It is started by the constructor and answers one request at a time.

    ``module`` is the program that it runs.

    It is a fresh interpreter: a fork would copy the locks of Ray's threads in any state, and
    ``multiprocessing`` would import Ray again, with the main module of a Ray worker.
    """

    def __init__(self, module: str = DECODER) -> None:
        self.module = module
        self._connection, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection.setblocking(False)
        lifeline, self._lifeline = os.pipe()
        try:
            path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(lifeline)],
                pass_fds=(theirs.fileno(), lifeline),
                env={**os.environ, **_ENVIRONMENT, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
            )
        except BaseException:
            os.close(self._lifeline)
            self._connection.close()
            raise
        finally:
            theirs.close()
            os.close(lifeline)
        self._ready = False
        self._closed = False

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs and can take a request."""
        return not self._closed and self._process.poll() is None

    async def start(self) -> None:
        """Wait until the process has imported its libraries; raise ``WorkerDied`` if it ended."""
        if not self._ready:
            await self._receive()
            self._ready = True

    async def ask(
        self,
        operation: str,
        *,
        cpu_s: float,
        memory_bytes: int,
        file: int | None = None,
        others: Sequence[int] = (),
        respond: Respond | None = None,
        **arguments: Any,
    ) -> tuple[Message, Bytes | None]:
        """Return the answer to a request, and the array that came with it.

        ``cpu_s`` and ``memory_bytes`` are its budget, ``file`` the descriptor of the caller's file,
        and ``others`` those of files that go with it. ``respond`` answers what the process asks
        meanwhile; without it, a process that asks something is at fault.
        Raises what the operation raised in the process: ``MediaError``, or ``RuntimeError`` for a
        fault of the code. Raises ``MediaTooLarge`` if it used up its CPU time, and ``WorkerDied``
        if it ended otherwise. If the caller of this method is cancelled, the process is killed.
        """
        if self._closed:
            raise self._died()
        await self.start()
        request = {"operation": operation, "cpu_s": max(cpu_s, 1e-3), "memory_bytes": memory_bytes, **arguments}
        try:
            send_message(self._connection, request, [*([] if file is None else [file]), *others])
        except EOFError:
            raise self._died() from None
        answer, array = await self._receive()
        while (question := answer.get("ask")) is not None:
            await self._reply(question, respond)
            answer, array = await self._receive()
        if (error := answer.get("error")) is None:
            return answer, array
        if error not in _ERRORS:
            raise RuntimeError(f"a media worker failed:\n{answer['detail']}")
        raise _ERRORS[error](answer["detail"])

    async def _reply(self, question: Message, respond: Respond | None) -> None:
        """Answer a question of the process; end it if that is not possible."""
        try:
            if respond is None:
                raise RuntimeError("a media worker has asked something that nobody answers")
            reply = await asyncio.to_thread(respond, question)
        except BaseException:
            self.kill()
            raise
        try:
            send_message(self._connection, reply)
        except EOFError:
            raise self._died() from None

    async def _receive(self) -> tuple[Message, Bytes | None]:
        try:
            await _readable(self._connection)
            answer, fds = receive_message(self._connection)
        except EOFError:
            raise self._died() from None
        except BaseException:
            self.kill()
            raise
        try:
            return answer, map_array(fds[0], answer["shape"]) if fds else None
        finally:
            for fd in fds:
                os.close(fd)

    def _died(self) -> Exception:
        """Return the error that the end of the process means for the file it worked on."""
        # Its end of the socket is closed a moment before its exit code is there.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(0.1)
        self.kill()
        code = self._process.wait()
        if code == -signal.SIGPROF:
            return MediaTooLarge("the file takes too much time to decode; save it again in an ordinary format, or smaller")
        return WorkerDied(signal.Signals(-code).name if code < 0 else f"exit code {code}")

    def kill(self) -> None:
        """End the process at once; do nothing if it has ended. ``reaped`` says when it is gone."""
        if not self._closed:
            self._closed = True
            self._connection.close()
            os.close(self._lifeline)
            self._process.kill()

    def reaped(self, timeout_s: float = 0) -> bool:
        """Return whether a process that was killed is gone, after at most ``timeout_s`` seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        return self._process.returncode is not None


async def _readable(connection: socket.socket) -> None:
    """Wait until ``connection`` has a message, or is closed by the other end."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(connection.fileno(), _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection.fileno())


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
