import asyncio
import gc
import logging
from collections.abc import AsyncIterator

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from serve.http.protocol.connection import TIMED_OUT, run_while_connected
from serve.problems import Problem
from tests.unit.serve.http.asgi import Exchange, body_messages, http_scope


class Work:
    """Work that never ends by itself. ``ended`` is set once its cleanup is complete."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.ended = False

    async def run(self) -> None:
        """Wait until the work is cancelled; the cleanup takes a few turns of the loop."""
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            self.ended = True


async def test_the_result_of_the_work_is_returned() -> None:
    async def work() -> str:
        return "done"

    assert await run_while_connected(Exchange().request(), work(), 60) == "done"
    assert len(asyncio.all_tasks()) == 1


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> str:
        raise KeyError("model")

    with pytest.raises(KeyError, match="model"):
        await run_while_connected(Exchange().request(), work(), 60)
    assert len(asyncio.all_tasks()) == 1


async def test_the_work_is_cancelled_and_awaited_when_the_client_leaves() -> None:
    exchange, work = Exchange(body_messages(b"late", b"pieces")), Work()
    run = asyncio.ensure_future(run_while_connected(exchange.request(), work.run(), 60))
    await work.started.wait()
    exchange.leave()
    with pytest.raises(ClientDisconnect):
        await run
    assert work.ended
    assert exchange.received == 2
    assert len(asyncio.all_tasks()) == 1


@pytest.fixture
async def _no_lost_errors() -> AsyncIterator[None]:
    """Fail if a task ends with an error that nobody has looked at."""
    loop, lost = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: lost.append(context["message"]))
    yield
    gc.collect()
    assert lost == []


@pytest.mark.usefixtures("_no_lost_errors")
async def test_a_connection_that_fails_counts_as_one_that_is_closed() -> None:
    work, gone = Work(), RuntimeError("the proxy is gone")

    async def receive() -> Message:
        await work.started.wait()
        raise gone

    with pytest.raises(ClientDisconnect) as left:
        await run_while_connected(Request(http_scope(), receive), work.run(), 60)
    assert left.value.__cause__ is gone
    assert work.ended


@pytest.mark.usefixtures("_no_lost_errors")
async def test_work_that_fails_as_it_is_cancelled_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    exchange, started = Exchange(), asyncio.Event()

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("model")

    run = asyncio.ensure_future(run_while_connected(exchange.request(), work(), 60))
    await started.wait()
    exchange.leave()
    with caplog.at_level(logging.INFO, "ray.serve"), pytest.raises(ClientDisconnect):
        await run
    assert "work that was cancelled failed: KeyError('model')" in caplog.text


async def test_the_work_is_cancelled_and_awaited_when_the_time_is_over() -> None:
    work = Work()
    with pytest.raises(Problem) as refused:
        await run_while_connected(Exchange().request(), work.run(), 0.02)
    assert (refused.value.status, refused.value.slug) == (504, "timeout")
    assert refused.value.detail == TIMED_OUT
    assert work.ended
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.parametrize("leaves", [False, True], ids=["client stays", "client leaves too"])
async def test_the_work_is_cancelled_and_awaited_when_the_caller_is(leaves: bool) -> None:
    exchange, work = Exchange(), Work()
    run = asyncio.ensure_future(run_while_connected(exchange.request(), work.run(), 60))
    await work.started.wait()
    if leaves:
        exchange.leave()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert work.ended
    assert len(asyncio.all_tasks()) == 1


async def test_work_that_ends_as_the_client_leaves_is_not_lost() -> None:
    exchange = Exchange()

    async def work() -> str:
        exchange.leave()
        return "done"

    assert await run_while_connected(exchange.request(), work(), 60) == "done"
