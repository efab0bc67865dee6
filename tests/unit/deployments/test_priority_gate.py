"""The order in which waiters get a place."""

import asyncio

from deployments.priority_gate import IN_A_ROW, PriorityGate


async def run_in_turn(gate: PriorityGate, order: list[str], name: str, *, urgent: bool) -> None:
    async with gate.place(urgent=urgent):
        order.append(name)


async def test_urgent_waiters_go_first_but_the_others_get_a_place_in_between() -> None:
    gate, order = PriorityGate(1), list[str]()
    async with gate.place():
        names = [("film 1", False), ("film 2", False), *((f"picture {n}", True) for n in range(1, 6))]
        waiting = []
        for name, urgent in names:
            waiting.append(asyncio.create_task(run_in_turn(gate, order, name, urgent=urgent)))
            await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    pictures = [f"picture {n}" for n in range(1, 6)]
    assert order == [*pictures[:IN_A_ROW], "film 1", *pictures[IN_A_ROW:], "film 2"]


async def test_as_many_as_there_are_places_hold_one_at_a_time() -> None:
    gate, held, most = PriorityGate(2), 0, 0

    async def hold(urgent: bool) -> None:
        nonlocal held, most
        async with gate.place(urgent=urgent):
            held += 1
            most = max(most, held)
            await asyncio.sleep(0)
            held -= 1

    await asyncio.gather(*(hold(number % 2 == 0) for number in range(20)))
    assert (held, most) == (0, 2)


async def test_a_waiter_that_gives_up_costs_nobody_a_place() -> None:
    gate, order = PriorityGate(1), list[str]()
    async with gate.place():
        leaves_waiting = asyncio.create_task(run_in_turn(gate, order, "left", urgent=True))
        leaves_served = asyncio.create_task(run_in_turn(gate, order, "left", urgent=True))
        stays = asyncio.create_task(run_in_turn(gate, order, "stayed", urgent=False))
        await asyncio.sleep(0)
        leaves_waiting.cancel()
        await asyncio.sleep(0)
    leaves_served.cancel()  # it has been given the place, and has not run since
    await asyncio.gather(leaves_waiting, leaves_served, stays, return_exceptions=True)
    assert order == ["stayed"]
    await asyncio.wait_for(run_in_turn(gate, order, "later", urgent=False), 10)
    assert order == ["stayed", "later"]


async def test_an_error_in_the_block_gives_the_place_back() -> None:
    gate, order = PriorityGate(1), list[str]()
    try:
        async with gate.place():
            raise ValueError
    except ValueError:
        pass
    await asyncio.wait_for(run_in_turn(gate, order, "next", urgent=False), 10)
    assert order == ["next"]


async def test_urgent_holders_have_places_that_the_others_cannot_take() -> None:
    gate, order = PriorityGate(1, reserved=1), list[str]()
    async with gate.place():
        film = asyncio.create_task(run_in_turn(gate, order, "film", urgent=False))
        await asyncio.sleep(0)
        assert order == []
        for name in ("picture 1", "picture 2"):
            await asyncio.wait_for(run_in_turn(gate, order, name, urgent=True), 10)
        assert order == ["picture 1", "picture 2"]
    await film
    assert order == ["picture 1", "picture 2", "film"]


async def test_the_others_get_their_places_while_urgent_ones_keep_coming() -> None:
    gate, order = PriorityGate(1, reserved=1), list[str]()
    async with gate.place(urgent=True), gate.place(urgent=True):
        waiting = [asyncio.create_task(run_in_turn(gate, order, f"picture {n}", urgent=True)) for n in range(8)]
        waiting += [asyncio.create_task(run_in_turn(gate, order, f"film {n}", urgent=False)) for n in range(2)]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)
    assert order.index("film 0") <= IN_A_ROW + 1
    assert order.index("film 1") <= 2 * (IN_A_ROW + 1) + 1
