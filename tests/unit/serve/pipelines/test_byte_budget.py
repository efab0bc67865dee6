"""Memory is reserved before it is used, in order, and always given back."""

import asyncio

import pytest

from serve.pipelines.byte_budget import ByteBudget
from serve.pipelines.errors import MediaBusy
from serve.problems import problem_of
from tests.unit.serve.pipelines.held import Held, settle


class Holders(Held):
    """Tasks that hold a reservation until they are told to give it back."""

    def __init__(self, budget: ByteBudget) -> None:
        super().__init__()
        self.budget = budget

    async def hold(self, name: str, count: int, caller: str | None = None) -> None:
        await self.start(name, self.budget.reserve(count, caller or name))


async def test_requests_of_one_size_are_served_in_order() -> None:
    holders = Holders(ByteBudget(100, patience_s=60))
    for name in "abcde":
        await holders.hold(name, 40)
    assert holders.order == ["a", "b"]
    assert holders.budget.reserved == 80
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


async def test_what_needs_more_than_there_is_waits_until_no_other_large_one_is_there() -> None:
    holders = Holders(ByteBudget(100, patience_s=60))
    await holders.hold("small", 3)
    await holders.hold("medium", 10)
    await holders.hold("huge", 1000)
    assert holders.order == ["small", "medium"]
    await holders.end("medium")
    assert holders.order == ["small", "medium", "huge"]
    await holders.hold("another small one", 3)
    assert holders.order[-1] == "another small one"
    assert holders.budget.reserved == 94


async def test_large_requests_of_many_callers_leave_room_for_small_ones() -> None:
    holders = Holders(ByteBudget(800, patience_s=60))
    half = holders.budget.half
    for caller in "abcd":
        await holders.hold(caller, half)
    assert holders.order == ["a", "b"]
    for i in range(4):
        await holders.hold(f"portrait {i}", 25)
    assert len(holders.order) == 6


async def test_one_caller_gets_half_while_others_wait() -> None:
    holders = Holders(ByteBudget(800, patience_s=60))
    await holders.hold("first", 300, caller="greedy")
    await holders.hold("blocker", 400)
    await holders.hold("second", 300, caller="greedy")
    await holders.hold("other", 300)
    await holders.end("blocker")
    assert holders.order == ["first", "blocker", "other"], "the earlier one of the greedy caller steps back"
    await holders.end("other")
    assert holders.order[-1] == "second", "nobody else waits any longer"


async def test_a_request_that_has_waited_is_no_longer_overtaken() -> None:
    now = 0.0
    holders = Holders(ByteBudget(800, patience_s=60, clock=lambda: now))
    await holders.hold("first", 300)
    await holders.hold("large", 650)
    await holders.hold("early", 100)
    assert holders.order == ["first", "early"], "it has only just come"
    now = 20.0
    await holders.hold("late", 100)
    for i in range(5):
        await holders.hold(f"portrait {i}", 25)
    assert holders.order[2:] == [f"portrait {i}" for i in range(4)], "small ones keep the share of their own"
    await holders.end("first")
    assert "large" not in holders.order
    await holders.end("early")
    assert "large" in holders.order
    assert "late" not in holders.order


async def test_when_a_request_that_held_up_others_leaves_they_are_served() -> None:
    now = 0.0
    holders = Holders(ByteBudget(800, patience_s=60, clock=lambda: now))
    await holders.hold("first", 300)
    await holders.hold("large", 600)
    now = 20.0
    await holders.hold("late", 100)
    holders.tasks["large"].cancel()
    await settle()
    assert holders.order == ["first", "late"]


async def test_a_reservation_shrinks_for_others_and_grows_only_if_there_is_room() -> None:
    holders = Holders(ByteBudget(100, patience_s=60))
    async with holders.budget.reserve(80, "first") as reservation:
        await holders.hold("next", 55)
        assert holders.order == []
        reservation.resize(30)
        await settle()
        assert holders.order == ["next"]
        reservation.resize(45)
        with pytest.raises(MediaBusy):
            reservation.resize(46)
        assert reservation.count == 45
    assert holders.budget.reserved == 55
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
    async with budget.reserve(60, "caller"):
        with pytest.raises(MediaBusy, match="memory") as busy:
            async with budget.reserve(60, "caller"):
                raise AssertionError("there was no room")
    problem = problem_of(busy.value)
    assert problem is not None
    assert problem.status == 503
    assert budget.reserved == 0
