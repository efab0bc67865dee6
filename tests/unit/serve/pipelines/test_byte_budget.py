"""Memory is reserved before it is used, in order, and always given back."""

import asyncio

import pytest

from serve.http.problems import problem_of
from serve.pipelines.byte_budget import ByteBudget
from serve.pipelines.errors import MediaBusy
from tests.unit.serve.pipelines.test_fair_queue import settle


class Holders:
    """Tasks that hold a reservation until they are told to give it back."""

    def __init__(self, budget: ByteBudget) -> None:
        self.budget = budget
        self.order: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def hold(self, name: str, count: int) -> None:
        self.tasks[name] = asyncio.ensure_future(self._hold(name, count))
        await settle()

    async def end(self, name: str) -> None:
        self.ends.pop(name).set()
        await self.tasks[name]
        await settle()

    async def _hold(self, name: str, count: int) -> None:
        async with self.budget.reserve(count):
            self.order.append(name)
            self.ends[name] = asyncio.Event()
            await self.ends[name].wait()


async def test_requests_of_one_size_are_served_in_order() -> None:
    holders = Holders(ByteBudget(100, patience_s=60))
    for name in "abcde":
        await holders.hold(name, 50)
    assert holders.order == ["a", "b"]
    assert holders.budget.reserved == 100
    for name in "abcde":
        await holders.end(name)
    assert holders.order == list("abcde")
    assert holders.budget.reserved == 0


async def test_what_fits_does_not_wait_behind_what_does_not() -> None:
    holders = Holders(ByteBudget(100, patience_s=60))
    await holders.hold("video", 80)
    await holders.hold("another video", 80)
    await holders.hold("portrait", 5)
    assert holders.order == ["video", "portrait"]
    await holders.end("video")
    assert holders.order[-1] == "another video"
    await holders.end("portrait")
    await holders.end("another video")


async def test_what_needs_more_than_there_is_waits_until_it_is_alone() -> None:
    holders = Holders(ByteBudget(100, patience_s=60))
    await holders.hold("small", 1)
    await holders.hold("huge", 1000)
    assert holders.order == ["small"]
    await holders.end("small")
    assert holders.order == ["small", "huge"]
    assert holders.budget.reserved == 100
    await holders.end("huge")


async def test_a_reservation_shrinks_for_others_and_grows_only_if_there_is_room() -> None:
    holders = Holders(ByteBudget(100, patience_s=60))
    async with holders.budget.reserve(80) as reservation:
        await holders.hold("next", 60)
        assert holders.order == []
        reservation.resize(30)
        await settle()
        assert holders.order == ["next"]
        reservation.resize(40)
        with pytest.raises(MediaBusy):
            reservation.resize(41)
        assert reservation.count == 40
    assert holders.budget.reserved == 60
    await holders.end("next")
    assert holders.budget.reserved == 0


async def test_who_leaves_gives_everything_back() -> None:
    holders = Holders(ByteBudget(100, patience_s=60))
    for name in "abc":
        await holders.hold(name, 100)
    holders.tasks["b"].cancel()
    holders.ends["a"].set()
    await asyncio.sleep(0)
    holders.tasks["c"].cancel()
    await settle()
    assert holders.budget.reserved == 0


async def test_who_waits_too_long_gets_a_503() -> None:
    budget = ByteBudget(100, patience_s=0.05)
    async with budget.reserve(60):
        with pytest.raises(MediaBusy, match="memory") as busy:
            async with budget.reserve(60):
                raise AssertionError("there was no room")
    problem = problem_of(busy.value)
    assert problem is not None
    assert problem.status == 503
    assert budget.reserved == 0
