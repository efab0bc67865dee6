"""Flow control: a producer has as many credits as its consumer gave it, and ends with it."""

import asyncio
import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from deployments import flow_control
from deployments.errors import Cancelled
from deployments.flow_control import ConsumerEnd, Credits, ProducerEnd

HOST = "127.0.0.1"
DEADLINE_S = 30
"""Seconds after which a test counts as stuck; nothing waits for them to pass."""


@pytest.fixture
async def consumer() -> AsyncIterator[ConsumerEnd]:
    end = ConsumerEnd(HOST)
    await end.start()
    yield end
    await end.stop()


@asynccontextmanager
async def connected(stream: ProducerEnd) -> AsyncIterator[Credits]:
    async with asyncio.timeout(DEADLINE_S), stream.connect() as credit:
        yield credit


async def waits_in_vain(credit: Credits, others: Credits) -> bool:
    """Return whether ``credit`` has none left, after a credit that was sent later has arrived."""
    task = asyncio.create_task(credit.acquire())
    await others.acquire()
    await asyncio.sleep(0)
    task.cancel()
    return not task.done()


async def test_a_stream_has_as_many_credits_as_its_size_and_one_more_for_each_release(consumer: ConsumerEnd) -> None:
    stream, marker = consumer.open(2), consumer.open(0)
    async with connected(stream) as credit, connected(marker) as other:
        await credit.acquire()
        await credit.acquire()
        consumer.release(marker)
        assert await waits_in_vain(credit, other)
        consumer.release(stream)
        await credit.acquire()


async def test_credits_released_before_the_producer_connects_are_not_lost(consumer: ConsumerEnd) -> None:
    stream = consumer.open(0)
    consumer.release(stream)
    async with connected(stream) as credit:
        await credit.acquire()


async def test_streams_of_one_consumer_do_not_share_credits(consumer: ConsumerEnd) -> None:
    first, second = consumer.open(1), consumer.open(1)
    async with connected(first) as credit, connected(second) as other:
        await credit.acquire()
        await other.acquire()
        consumer.release(second)
        assert await waits_in_vain(credit, other)


async def test_closing_a_stream_cancels_a_producer_that_waits_for_a_credit(consumer: ConsumerEnd) -> None:
    stream = consumer.open(0)
    async with connected(stream) as credit:
        waiting, closed = asyncio.create_task(credit.acquire()), asyncio.create_task(credit.closed())
        consumer.close(stream)
        with pytest.raises(Cancelled, match="closed"):
            await waiting
        await closed
        with pytest.raises(Cancelled):  # and every later call
            await credit.acquire()


async def test_closing_a_stream_cancels_a_producer_with_credits_left(consumer: ConsumerEnd) -> None:
    stream = consumer.open(5)
    async with connected(stream) as credit:
        await credit.acquire()
        consumer.close(stream)
        await credit.closed()
        with pytest.raises(Cancelled):
            await credit.acquire()


async def test_a_stream_that_was_closed_before_its_producer_connects_is_closed_for_it(consumer: ConsumerEnd) -> None:
    stream = consumer.open(3)
    consumer.close(stream)
    async with connected(stream) as credit:
        with pytest.raises(Cancelled):
            await credit.acquire()
    consumer.release(stream)
    consumer.close(stream)


async def test_closing_one_stream_leaves_the_others_open(consumer: ConsumerEnd) -> None:
    first, second = consumer.open(1), consumer.open(1)
    async with connected(first) as credit, connected(second) as other:
        consumer.close(first)
        await credit.closed()
        await other.acquire()
        consumer.release(second)
        await other.acquire()


async def test_a_stream_has_one_producer(consumer: ConsumerEnd) -> None:
    stream = consumer.open(1)
    async with connected(stream) as credit:
        await credit.acquire()
        async with connected(stream) as second:
            await second.closed()
        consumer.release(stream)
        await credit.acquire()


async def test_a_producer_whose_consumer_cannot_be_reached_is_cancelled_at_once() -> None:
    end = ConsumerEnd(HOST)
    await end.start()
    stream = end.open(3)
    await end.stop()
    with pytest.raises(Cancelled, match="cannot be reached"):
        async with connected(stream):
            pass


@pytest.mark.parametrize("sent", [b"x" * 32, b"\xff" * 32, b"short", b"GET / HTTP/1.1\r\n\r\n" * 1000])
async def test_a_stranger_gets_no_credit_and_disturbs_nobody(consumer: ConsumerEnd, sent: bytes) -> None:
    stream = consumer.open(1)
    async with connected(stream) as credit:
        reader, writer = await asyncio.open_connection(HOST, stream.port)
        writer.write(sent)
        writer.write_eof()
        with contextlib.suppress(ConnectionResetError):  # the consumer left before it had read everything
            assert await reader.read() == b""
        writer.close()
        await credit.acquire()
        consumer.release(stream)
        await credit.acquire()


async def test_strangers_that_send_nothing_are_limited_in_number_and_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_control, "MAX_UNKNOWN", 2)
    end = ConsumerEnd(HOST)
    await end.start()
    stream = end.open(1)
    async with asyncio.timeout(DEADLINE_S):
        silent = [await asyncio.open_connection(HOST, stream.port) for _ in range(2)]
        async with connected(stream) as credit:
            await credit.acquire()
            assert await silent[0][0].read() == b"", "the oldest one made room"
            silent += [await asyncio.open_connection(HOST, stream.port) for _ in range(2)]
            assert await silent[1][0].read() == b""
            end.release(stream)
            await credit.acquire()  # whose token is known is not closed
    for _, writer in silent:
        writer.close()
    await end.stop()


async def test_stopping_does_not_wait_for_connections_that_stay_open(monkeypatch: pytest.MonkeyPatch) -> None:
    end = ConsumerEnd(HOST)
    await end.start()
    stream = end.open(1)
    server = end._server
    assert server is not None
    wait_closed = server.wait_closed
    left: list[object] = []

    async def wait_for_connections() -> None:
        left.extend(end._connections)
        await wait_closed()

    monkeypatch.setattr(server, "wait_closed", wait_for_connections)
    reader, writer = await asyncio.open_connection(HOST, stream.port)
    async with connected(stream) as credit:
        await credit.acquire()
        async with asyncio.timeout(DEADLINE_S):
            await end.stop()
            assert await reader.read() == b""
            await credit.closed()
    writer.close()
    assert left == [], "the server has no connection left to wait for"


async def test_a_stranger_that_sends_nothing_is_closed_after_a_time(
    consumer: ConsumerEnd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_control, "CONNECT_TIMEOUT_S", 0.01)
    reader, writer = await asyncio.open_connection(HOST, consumer.open(1).port)
    async with asyncio.timeout(DEADLINE_S):
        assert await reader.read() == b""
    writer.close()


CONSUMER = """
import asyncio, pickle, sys
from deployments.flow_control import ConsumerEnd

async def main():
    consumer = ConsumerEnd("127.0.0.1")
    await consumer.start()
    sys.stdout.buffer.write(pickle.dumps(consumer.open(1)).hex().encode() + b"\\n")
    sys.stdout.buffer.flush()
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("with_credits", [True, False])
async def test_a_consumer_killed_cancels_its_producer(with_credits: bool) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", CONSUMER, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        stream = pickle.loads(bytes.fromhex((await process.stdout.readline()).decode()))
        async with connected(stream) as credit:
            if not with_credits:
                await credit.acquire()
            os.kill(process.pid, signal.SIGKILL)
            await credit.closed()
            with pytest.raises(Cancelled):
                await credit.acquire()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_consumer_outlives_producers_that_vanish(consumer: ConsumerEnd) -> None:
    for _ in range(3):
        stream = consumer.open(1)
        async with connected(stream) as credit:
            await credit.acquire()
        for _ in range(20):  # to a connection that is gone
            consumer.release(stream)
        consumer.close(stream)
    last = consumer.open(1)
    async with connected(last) as credit:
        await credit.acquire()


def test_a_producers_end_travels_with_the_request_and_does_not_show_its_token() -> None:
    stream = ProducerEnd("10.0.0.7", 40000, "secret")
    assert pickle.loads(pickle.dumps(stream)) == stream
    assert "secret" not in repr(stream)


def test_a_stream_needs_a_consumer_that_listens() -> None:
    with pytest.raises(RuntimeError, match="start"):
        ConsumerEnd(HOST).open(1)
