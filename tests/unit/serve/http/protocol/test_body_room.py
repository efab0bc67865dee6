import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from serve.http.protocol import body_room
from serve.http.protocol.body_room import BodyRoom, Claim, Upload
from serve.problems import Problem
from tests.unit.serve.http.asgi import until


def make_room(capacity: int = 100, *, queue_timeout_s: float = 60) -> BodyRoom:
    return BodyRoom(capacity, queue_timeout_s=queue_timeout_s)


async def until_waiting(room: BodyRoom, number: int) -> None:
    """Return once ``number`` bodies wait."""
    await until(lambda: len(room._waiting) == number)


async def test_room_is_given_at_once_while_there_is_some_and_comes_back() -> None:
    room = make_room()
    one, two = await room.take(60, "one"), await room.take(40, "one")
    assert room.free == 0
    one.shrink(10)
    assert room.free == 50
    one.release()
    one.release()
    two.release()
    assert room.free == 100


async def test_who_waits_is_served_in_order_even_if_a_later_one_is_smaller() -> None:
    room, order = make_room(), []
    holder = await room.take(100, "one")

    async def take(size: int) -> None:
        (await room.take(size, "one")).release()
        order.append(size)

    waiting = []
    for number, size in enumerate((80, 1, 50), 1):
        waiting.append(asyncio.ensure_future(take(size)))
        await until_waiting(room, number)
    holder.shrink(50)
    await asyncio.sleep(0)
    assert order == []
    holder.release()
    await asyncio.gather(*waiting)
    assert order == [80, 1, 50]
    assert room.free == 100


async def test_who_waits_too_long_is_refused_and_leaves_the_queue() -> None:
    room = make_room(queue_timeout_s=0.05)
    holder = await room.take(100, "one")
    with pytest.raises(Problem) as refused:
        await room.take(1, "one")
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
    holder.release()
    assert room.free == 100
    (await room.take(100, "one")).release()


@pytest.mark.parametrize("granted", [False, True], ids=["while it waits", "as it is served"])
async def test_who_leaves_the_queue_takes_nothing(granted: bool) -> None:
    room = make_room()
    holder = await room.take(100, "one")
    waiting = asyncio.ensure_future(room.take(70, "one"))
    await until_waiting(room, 1)
    if granted:
        holder.release()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    holder.release()
    assert room.free == 100


async def test_when_the_first_one_leaves_the_next_one_is_served() -> None:
    room = make_room()
    holder = await room.take(50, "one")
    first, second = asyncio.ensure_future(room.take(80, "one")), asyncio.ensure_future(room.take(20, "one"))
    await until_waiting(room, 2)
    first.cancel()
    (await second).release()
    holder.release()
    assert room.free == 100


async def test_what_can_never_fit_and_a_queue_that_is_full_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "MAX_WAITING", 1)
    room = make_room()
    with pytest.raises(Problem):
        await room.take(101, "one")
    holder = await room.take(100, "one")
    waiting = asyncio.ensure_future(room.take(1, "one"))
    await until_waiting(room, 1)
    with pytest.raises(Problem):
        await room.take(1, "one")
    holder.release()
    (await waiting).release()


class Arriving:
    """A body that holds a claim while it arrives."""

    def __init__(self, room: BodyRoom, claim: Claim) -> None:
        self._room, self._claim = room, claim
        self.upload: Upload
        self.begun = asyncio.Event()
        self.complete = asyncio.Event()
        self.task = asyncio.ensure_future(self._run())

    async def _run(self) -> bool:
        """Return whether the body arrived; release its claim if it did not."""
        try:
            async with asyncio.timeout(None) as limit:
                self.upload = Upload(limit, stretch_bytes=10, stall_s=60, total_s=600)
                self._room.watch(self.upload, self._claim)
                self.begun.set()
                await self.complete.wait()
        except TimeoutError:
            assert self.upload.dropped
            self._claim.release()
            return False
        finally:
            self._room.forget(self.upload)
        return True


@contextlib.asynccontextmanager
async def arriving(room: BodyRoom, *sizes: int) -> AsyncIterator[list[Arriving]]:
    """Hold claims of ``sizes`` for bodies that arrive while the block runs."""
    bodies = [Arriving(room, await room.take(size, "one")) for size in sizes]
    for body in bodies:
        await body.begun.wait()
    yield bodies
    for body in bodies:
        body.complete.set()
    await asyncio.gather(*(body.task for body in bodies))


async def test_bodies_that_stall_make_room_the_longest_stall_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "BUSY_STALL_S", 0.0)
    room = make_room()
    async with arriving(room, 40, 30, 30) as bodies:
        bodies[0].upload.note(10)  # a stretch is complete, so it stalls for a shorter time than the others
        claim = await room.take(50, "one")
        assert [body.upload.dropped for body in bodies] == [False, True, True]
        claim.release()


async def test_a_body_that_makes_progress_keeps_its_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "BUSY_STALL_S", 3600.0)
    room = make_room(queue_timeout_s=0.05)
    async with arriving(room, 100) as bodies:
        with pytest.raises(Problem, match="too many bodies"):
            await room.take(1, "one")
        assert not bodies[0].upload.dropped


async def test_a_body_that_stalls_is_left_alone_while_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "BUSY_STALL_S", 0.0)
    room = make_room()
    async with arriving(room, 50, 30) as bodies:
        (await room.take(20, "one")).release()
        assert not any(body.upload.dropped for body in bodies)


async def taken(room: BodyRoom, *orders: tuple[int, str]) -> list["asyncio.Future[Claim]"]:
    """Ask for room for each of ``orders``, a size and a caller, in this order."""
    futures: list[asyncio.Future[Claim]] = []
    for size, caller in orders:
        futures.append(asyncio.ensure_future(room.take(size, caller)))
        await asyncio.sleep(0)
    return futures


async def test_while_others_wait_one_caller_gets_at_most_half() -> None:
    room = make_room()
    holder = await room.take(100, "nobody")
    waiting = await taken(room, (40, "greedy"), (40, "greedy"), (20, "modest"))
    await until_waiting(room, 3)
    holder.release()
    first, modest = await waiting[0], await waiting[2]
    assert (await waiting[1]).caller == "greedy"  # nobody else waits any more
    assert room.free == 0
    later = await taken(room, (30, "greedy"), (30, "modest"))
    await until_waiting(room, 2)
    first.release()  # it has 40 still, and those who have less go first
    assert (await later[1]).caller == "modest"
    assert not later[0].done()
    modest.release()
    await later[0]


async def test_one_caller_has_half_of_the_waiting_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_room, "MAX_WAITING", 4)
    room = make_room()
    holder = await room.take(100, "one")
    waiting = await taken(room, (1, "one"), (1, "one"))
    with pytest.raises(Problem):
        await room.take(1, "one")
    waiting += await taken(room, (1, "two"))
    await until_waiting(room, 3)
    holder.release()
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("sizes", [(40, 40, 20), (30, 30, 40)])
async def test_the_oldest_bodies_of_who_has_more_than_half_give_way(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_room, "BUSY_STALL_S", 3600.0)
    monkeypatch.setattr(body_room, "GIVE_WAY_AFTER", 0.0)
    room = make_room()
    async with arriving(room, *sizes) as bodies:
        claim = await room.take(30, "two")
        assert [body.upload.dropped for body in bodies] == [True, False, False]
        claim.release()


@pytest.mark.parametrize(("sizes", "others"), [((90,), 0), ((25, 25), 45)], ids=["a single body", "half of the room"])
async def test_a_caller_keeps_a_single_body_and_half_of_the_room(
    sizes: tuple[int, ...], others: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_room, "BUSY_STALL_S", 3600.0)
    monkeypatch.setattr(body_room, "GIVE_WAY_AFTER", 0.0)
    room = make_room(queue_timeout_s=0.05)
    other = await room.take(others, "three")
    async with arriving(room, *sizes) as bodies:
        with pytest.raises(Problem):
            await room.take(60, "two")
        assert not any(body.upload.dropped for body in bodies)
    other.release()
