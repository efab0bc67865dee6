"""The process that decodes callers' files.

It is started as ``python -m serve.media.workers.worker SOCKET LIFELINE``.

Other programs serve sessions of their own with ``serve``, as ``serve.provenance.worker`` does. A
process answers one request at a time on the socket with the number ``SOCKET``. Each request carries
its budget: seconds of CPU time, after which the kernel kills the process, and bytes of memory,
beyond which allocation fails. ``LIFELINE`` is a pipe whose other end is held by the parent alone.
The kernel kills this process when the parent is gone, however it ended and whatever a decoder is
doing.
"""

import contextlib
import fcntl
import logging
import os
import resource
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from serve.media.audio import AudioTrack
from serve.media.container import is_image
from serve.media.decode.claims import claim_of, decode_reduced, open_within
from serve.media.decode.opening import open_source
from serve.media.decode.source import Source, SourceLimits, TimedFrames
from serve.media.encode.soundtrack import add_soundtrack
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.spool import Spool, read_media
from serve.media.workers.messages import Message, receive_message, send_message
from serve.media.workers.shared_array import Bytes, write_array

Answer = tuple[Message, Bytes | None]
"""What a session answers: a message, and an array that goes with it."""
Ask = Callable[[Message], Message]
"""Asks the parent something in the middle of a request, and returns its reply."""
_SPOOL_FROM_BYTES = 2**20
"""Files from this size on are read where they are, smaller ones are read into memory."""


class Session(Protocol):
    """What a process does for its parent."""

    def answer(self, request: Message, files: Sequence[Spool], ask: Ask) -> Answer:
        """Return the answer to a request, which came with ``files``."""


class _Session:
    """The file that the process works on: a picture for one request, a video for several."""

    def __init__(self) -> None:
        self._chunks: Iterator[TimedFrames] = iter(())
        self._source: Source | None = None
        self._track: AudioTrack | None = None

    def answer(self, request: Message, files: Sequence[Spool], ask: Ask) -> Answer:
        operation: Callable[[Message, Sequence[Spool]], Answer] = getattr(self, request["operation"])
        return operation(request, files)

    def decode(self, request: Message, files: Sequence[Spool]) -> Answer:
        max_pixels, max_scans, max_side = request["max_pixels"], request["max_scans"], request["max_side"]
        allowed_bytes = request["allowed_bytes"]
        with blaming_file():
            image = open_within(files[0].read(), max_pixels, max_scans)
            claim = claim_of(image, max_side)
            answer = {"working_bytes": claim.working_bytes, "result_bytes": claim.result_bytes}
            return answer, None if claim.working_bytes > allowed_bytes else decode_reduced(image, max_side)

    def open(self, request: Message, files: Sequence[Spool]) -> Answer:
        self._free()
        limits = SourceLimits(
            frames=request["max_frames"],
            seconds=request["max_seconds"],
            pixels=request["max_pixels"],
            scans=request["max_scans"],
        )
        rate = None if request["rate"] is None else Fraction(request["rate"])
        sound: bool = request["sound"]
        with blaming_file():
            data = read_media(files[0]) if files[0].size < _SPOOL_FROM_BYTES else files[0]
            if is_image(data):  # opening it decodes frames
                claim = claim_of(open_within(read_media(data), limits.pixels, limits.scans), None)
                if claim.working_bytes > request["allowed_bytes"]:
                    return {"working_bytes": claim.working_bytes}, None
            source = open_source(data, limits)
            if rate is not None:
                source = source.at_fps(rate)
            self._source, self._chunks = source, source.chunks()
            if sound and source.audio is not None:
                self._track = AudioTrack(source.audio)
            answer = {"count": source.count, "duration": str(source.duration), "pixels": source.pixels}
            return {**answer, "sound": self._track is not None}, None

    def chunk(self, request: Message, _: Sequence[Spool]) -> Answer:
        skip = request["skip"]
        with blaming_file():
            for _skipped in range(skip):
                next(self._chunks)
            chunk = next(self._chunks, None)
            if chunk is not None and self._track is not None:  # while others work on frames
                self._track.prepare_until(chunk.times[-1])
        damaged = 0 if self._source is None else self._source.damaged
        if chunk is None:
            return {"end": True, "damaged": damaged}, None
        times = [str(time) for time in chunk.times]
        return {"end": False, "damaged": damaged, "index": chunk.index, "times": times}, chunk.frames

    def add_sound(self, request: Message, files: Sequence[Spool]) -> Answer:
        """Write the first file, which is a draft, with the sound of the video into the second."""
        draft, result = files
        assert self._track is not None
        with blaming_file():
            add_soundtrack(draft, self._track, result, end=Fraction(request["end"]))
        self._free()
        return {}, None

    def close(self, _: Message, __: Sequence[Spool]) -> Answer:
        self._free()
        return {}, None

    def _free(self) -> None:
        if self._track is not None:
            self._track.close()
        self._source, self._chunks, self._track = None, iter(()), None


@contextlib.contextmanager
def blaming_file() -> Iterator[None]:
    """Turn what the code that reads a caller's file does not expect into a ``MediaError``.

    No file may look like a fault of the service, so the fault is logged with its traceback.
    """
    try:
        yield
    except (MediaError, MemoryError):
        raise
    except Exception as error:
        kind = type(error).__name__
        logging.warning("a file could not be decoded: %s", kind, exc_info=error)
        raise MediaError(f"the file cannot be decoded ({kind}); save it again in an ordinary format") from None


def serve(session: Session) -> None:
    """Answer the requests of the parent with ``session`` until it closes the socket."""
    connection = socket.socket(fileno=int(sys.argv[1]))
    _die_with_parent(int(sys.argv[2]))
    _prefer_to_be_killed()
    os.nice(5)  # the proxies and the ingress come first, since they serve everybody
    logging.basicConfig(format="media worker: %(message)s", level=logging.WARNING)
    with contextlib.suppress(EOFError):  # the parent has closed the socket
        _serve(connection, session)


def _serve(connection: socket.socket, session: Session) -> None:
    def ask(question: Message) -> Message:
        send_message(connection, {"ask": question})
        reply, _ = receive_message(connection)
        return reply

    idle_bytes = _address_space()
    send_message(connection, {"ready": True})
    while True:
        request, fds = receive_message(connection)
        started = time.process_time()
        files = [Spool(fd) for fd in fds]
        answer, array = _answer(session, request, files, ask=ask, idle_bytes=idle_bytes)
        files.clear()
        answer["cpu_s"] = time.process_time() - started
        results = []
        if array is not None:
            answer["shape"] = array.shape
            results.append(write_array(array))
        del array
        send_message(connection, answer, results)
        for fd in results:
            os.close(fd)


def _answer(session: Session, request: Message, files: Sequence[Spool], *, ask: Ask, idle_bytes: int) -> Answer:
    try:
        with _budget(cpu_s=request["cpu_s"], memory_bytes=idle_bytes + request["memory_bytes"]):
            return session.answer(request, files, ask)
    except MemoryError:
        return {"error": MediaTooLarge.__name__, "detail": "the file needs too much memory to decode; send a smaller one"}, None
    except MediaError as error:
        return {"error": type(error).__name__, "detail": str(error)}, None
    except Exception as error:
        trace = "".join(traceback.format_exception(error))
        return {"error": "Exception", "detail": trace[-2000:]}, None


def _address_space() -> int:
    """Return the bytes of the process's address space that are in use."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


@contextlib.contextmanager
def _budget(*, cpu_s: float, memory_bytes: int) -> Iterator[None]:
    """Let the kernel enforce the budgets while the block runs."""
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, most))
    # This timer counts the CPU time of all threads, in fractions of a second, unlike RLIMIT_CPU.
    signal.setitimer(signal.ITIMER_PROF, cpu_s)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _die_with_parent(lifeline: int) -> None:
    """Let the kernel end this process once nobody holds the other end of ``lifeline``.

    ``PR_SET_PDEATHSIG`` would not do: it fires when the thread that started this process ends.
    """
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    # Ctrl-C is for the parent, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    poll = select.poll()
    poll.register(lifeline, 0)
    if poll.poll(0):  # it hung up before the signal was armed
        sys.exit()


def _prefer_to_be_killed() -> None:
    """Let the kernel kill this process first when memory runs out, because it can be replaced."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError as error:
        logging.warning("oom_score_adj cannot be set: %s", error)


if __name__ == "__main__":
    serve(_Session())
