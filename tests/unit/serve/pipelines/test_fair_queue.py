"""Places go to callers in turn, nobody holds all of them, and nobody waits without end."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from serve.pipelines.errors import MediaBusy
from serve.pipelines.fair_queue import FairQueue
from serve.problems import problem_of
from tests.unit.serve.pipelines.held import Held, settle


class Requests(Held):
    """Requests that hold a place until they are told to give it back."""

    def __init__(self, queue: FairQueue) -> None:
        super().__init__()
        self._queue = queue

    async def send(self, name: str) -> None:
        """Let the caller whose name is the first letter of ``name`` send a request."""
        await self.start(name, self._queue.place(name[0]))


async def test_a_caller_holds_at_most_its_share_and_others_still_get_in() -> None:
    requests = Requests(FairQueue.with_halves(4, patience_s=60))
    for name in ("a1", "a2", "a3", "a4", "b1", "c1"):
        await requests.send(name)
    assert requests.order == ["a1", "a2", "b1", "c1"]
    await requests.end("b1")
    assert requests.order[-1] == "c1", "a3 would be the third place of its caller"
    await requests.end("a1")
    assert requests.order[-1] == "a3"
    for name in list(requests.ends):
        await requests.end(name)
    await requests.end("a4")


async def test_callers_take_turns_and_each_ones_requests_keep_their_order() -> None:
    requests = Requests(FairQueue(1, 1, patience_s=60))
    for name in ("x0", "a1", "a2", "a3", "b1", "b2"):
        await requests.send(name)
    while requests.ends:
        await requests.end(next(iter(requests.ends)))
    assert requests.order == ["x0", "a1", "b1", "a2", "b2", "a3"]


async def test_who_leaves_while_waiting_or_holding_blocks_nobody() -> None:
    requests = Requests(FairQueue(1, 1, patience_s=60))
    for name in ("a1", "b1", "c1", "d1"):
        await requests.send(name)
    requests.tasks["b1"].cancel()
    requests.tasks["a1"].cancel()
    await settle()
    assert requests.order == ["a1", "c1"]
    # c1 gives back and d1 leaves at the same moment: the place must not be lost
    requests.ends["c1"].set()
    await asyncio.sleep(0)
    requests.tasks["d1"].cancel()
    await settle()
    await requests.send("e1")
    assert requests.order[-1] == "e1"
    await requests.end("e1")


async def test_who_waits_too_long_gets_a_503_and_leaves_the_queue() -> None:
    queue = FairQueue(1, 1, patience_s=0.05)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(queue.place("a"))
        with pytest.raises(MediaBusy) as busy:
            await stack.enter_async_context(queue.place("b"))
    problem = problem_of(busy.value)
    assert problem is not None
    assert (problem.status, problem.headers["Retry-After"]) == (503, "1")
    async with queue.place("b"):
        pass
