"""The steps of a flow, and the bytes of a stream, as both clients carry them out."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from serve.client.flow import Emit, Flow, Operation, Pause, Read, Send, Steps, Stream

SEND = Send(method="GET", path="/jobs")


class Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in pieces, which knows whether it was closed."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


def asking(log: list[object]) -> Flow[str]:
    """Send, wait after a failure, emit each answer, and return the last one."""
    answer = ""
    try:
        for _ in range(2):
            try:
                answer = yield SEND
            except httpx.ReadError as error:
                yield Pause(1.5, str(error))
            else:
                yield Emit(answer)
        return answer
    finally:
        log.append("closed")


def operation(steps: Steps[Any]) -> Operation | None:
    """Return the next operation, of which a type checker does not know that it changes."""
    return steps.operation


def test_a_flow_is_carried_out_operation_by_operation_to_its_result() -> None:
    log: list[object] = []
    steps = Steps(asking(log))
    assert operation(steps) == SEND
    steps.fail(httpx.ReadError("cut off"))
    assert operation(steps) == Pause(1.5, "cut off")
    steps.reply(None)
    assert operation(steps) == SEND
    steps.reply("an answer")
    assert operation(steps) == Emit("an answer")
    assert log == []
    steps.reply(None)
    assert (operation(steps), steps.result, log) == (None, "an answer", ["closed"])


def test_a_failure_that_a_flow_does_not_expect_ends_it() -> None:
    log: list[object] = []
    steps = Steps(asking(log))
    with pytest.raises(httpx.ConnectError, match="refused"):
        steps.fail(httpx.ConnectError("refused"))
    assert log == ["closed"]


def test_a_flow_that_ends_upon_a_failure_has_a_result() -> None:
    def patient() -> Flow[int]:
        try:
            yield Read()
        except httpx.ReadError:
            return 3
        return 4

    steps = Steps(patient())
    steps.fail(httpx.ReadError(""))
    assert (steps.operation, steps.result) == (None, 3)


def test_a_flow_without_operations_has_its_result_at_once() -> None:
    def nothing() -> Flow[None]:
        return None
        yield

    steps = Steps(nothing())
    assert (steps.operation, steps.result) == (None, None)


def test_a_flow_that_is_closed_cleans_up_and_may_be_closed_again() -> None:
    log: list[object] = []
    steps = Steps(asking(log))
    steps.close()
    steps.close()
    assert log == ["closed"]


@pytest.mark.parametrize("later", [False, True])
def test_a_stream_gives_its_bytes_as_they_came_and_none_at_the_end(later: bool) -> None:
    body = Body(b"\x1f\x8b not", b" decoded")
    response = httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=body)
    stream = Stream(response)

    async def read() -> list[bytes]:
        return [await stream.aread() for _ in range(4)]

    pieces = asyncio.run(read()) if later else [stream.read() for _ in range(4)]
    assert pieces == [b"\x1f\x8b not", b" decoded", b"", b""]


@pytest.mark.parametrize("later", [False, True])
def test_a_stream_that_is_left_early_closes_its_connection(later: bool) -> None:
    body = Body(b"one", b"two")
    stream = Stream(httpx.Response(200, stream=body))

    async def leave() -> bytes:
        first = await stream.aread()
        await stream.aclose()
        return first

    if later:
        assert asyncio.run(leave()) == b"one"
    else:
        assert stream.read() == b"one"
        stream.close()
    assert body.closed
