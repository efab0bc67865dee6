"""Flow control: a producer has as many credits as its consumer gave it, and ends with it."""

import asyncio
import pickle

import pytest

from deployments.errors import Cancelled
from deployments.flow_control import CreditWindow, ProducerEnd
from tests.unit.deployments.fake_window import LocalWindow


async def waits(task: "asyncio.Task[None]") -> bool:
    """Return whether a task still waits after everything else has run."""
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


async def test_a_stream_has_as_many_credits_as_its_size() -> None:
    window = CreditWindow()
    await window.open("a", 2)
    await window.acquire("a")
    await window.acquire("a")
    third = asyncio.create_task(window.acquire("a"))
    assert await waits(third)
    await window.release("a")
    await asyncio.wait_for(third, 1)


async def test_streams_of_one_consumer_do_not_share_credits() -> None:
    window = CreditWindow()
    await window.open("a", 1)
    await window.open("b", 1)
    await window.acquire("a")
    await window.release("b")
    assert await waits(asyncio.create_task(window.acquire("a")))
    for _ in range(2):
        await asyncio.wait_for(window.acquire("b"), 1)


async def test_closing_a_stream_cancels_a_producer_that_waits_for_a_credit() -> None:
    window = CreditWindow()
    await window.open("a", 0)
    waiting, ended = asyncio.create_task(window.acquire("a")), asyncio.create_task(window.ended("a"))
    assert await waits(waiting)
    assert await waits(ended)
    await window.close("a")
    with pytest.raises(Cancelled, match="closed"):
        await asyncio.wait_for(waiting, 1)
    await asyncio.wait_for(ended, 1)


async def test_closing_a_stream_cancels_a_producer_with_credits_left() -> None:
    window = CreditWindow()
    await window.open("a", 5)
    await window.close("a")
    with pytest.raises(Cancelled):
        await window.acquire("a")


async def test_a_stream_that_was_never_opened_counts_as_closed() -> None:
    window = CreditWindow()
    with pytest.raises(Cancelled):
        await window.acquire("unknown")
    await asyncio.wait_for(window.ended("unknown"), 1)
    await window.release("unknown")
    await window.close("unknown")


async def test_a_producers_end_asks_its_window_for_its_own_stream() -> None:
    handle = LocalWindow()
    stream, other = ProducerEnd(handle, "mine"), ProducerEnd(handle, "other")
    await handle.window.open("mine", 1)
    await handle.window.open("other", 1)
    await stream.acquire()
    closed = asyncio.create_task(stream.closed())
    assert await waits(closed)
    await handle.window.close("mine")
    await asyncio.wait_for(closed, 1)
    with pytest.raises(Cancelled):
        await stream.acquire()
    await asyncio.wait_for(other.acquire(), 1)


def test_a_producers_end_travels_with_the_request() -> None:
    stream = ProducerEnd("a handle", "mine")
    assert pickle.loads(pickle.dumps(stream)) == stream
