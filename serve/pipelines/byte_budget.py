"""The memory that decoded media of all requests may take, reserved before anything is decoded."""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serve.pipelines.errors import MediaBusy


@dataclass(frozen=True)
class _Class:
    """The requests that share a limit: the small or the large ones of ``caller``."""

    caller: str
    small: bool


class Reservation:
    """The share of one request. ``count`` is its size in bytes."""

    def __init__(self, budget: "ByteBudget", count: int, owner: _Class) -> None:
        self._budget = budget
        self._owner = owner
        self.count = count

    def resize(self, count: int) -> None:
        """Change the size without waiting; raise ``MediaBusy`` if there is no room to grow."""
        self._budget.exchange(self._owner, self.count, count)
        self.count = count


@dataclass(frozen=True)
class _Waiting:
    count: int
    owner: _Class
    since: float
    turn: asyncio.Future[None]


class ByteBudget:
    """Gives out ``total`` bytes in the order of the requests.

    A request reserves all it needs at once, so that no two can wait for each other. One that fits
    into what is left does not wait behind a larger one that does not, unless that has waited for a
    third of ``patience_s``. An eighth of ``total`` is kept for small requests, which never wait for
    large ones. A request that needs more than the rest waits until no other large one has a
    reservation. While others wait, one caller's large requests get at most ``half`` of the rest,
    or one request, and so do its small ones. A request that waits longer than ``patience_s`` is
    refused with ``MediaBusy``. ``clock`` tells the time in seconds.
    """

    def __init__(self, total: int, patience_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._patience_s = patience_s
        self._clock = clock
        self._for_small = total // 8
        self._waiting: deque[_Waiting] = deque()
        self._held: Counter[_Class] = Counter()

    @property
    def half(self) -> int:
        """Half of the bytes for large requests."""
        return (self._total - self._for_small) // 2

    @property
    def reserved(self) -> int:
        """The bytes that are given out now."""
        return self._held.total()

    @asynccontextmanager
    async def reserve(self, count: int, caller: str) -> AsyncIterator[Reservation]:
        """Hold ``count`` bytes for ``caller`` while the block runs."""
        owner = _Class(caller, small=count <= self._for_small // 4)
        count = min(count, self._total - self._for_small)
        await self._wait(count, owner)
        reservation = Reservation(self, count, owner)
        try:
            yield reservation
        finally:
            self.exchange(owner, reservation.count, 0)

    def exchange(self, owner: _Class, old: int, new: int) -> None:
        """Replace ``old`` reserved bytes by ``new``; raise ``MediaBusy`` if there is no room."""
        if new > old and self.reserved - old + new > self._total:
            raise MediaBusy("the memory for decoded files is in use", self._patience_s)
        self._held[owner] += new - old
        if not self._held[owner]:
            del self._held[owner]
        self._serve()

    async def _wait(self, count: int, owner: _Class) -> None:
        waiting = _Waiting(count, owner, since=self._clock(), turn=asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._serve()
        try:
            async with asyncio.timeout(self._patience_s):
                await waiting.turn
        except BaseException as error:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
                self._serve()  # those that were not allowed to overtake it
            elif waiting.turn.done() and not waiting.turn.cancelled():
                self.exchange(owner, count, 0)  # the turn came at the moment of giving up
            if isinstance(error, TimeoutError):
                raise MediaBusy("the memory for decoded files is in use", self._patience_s) from None
            raise

    def _serve(self) -> None:
        held_up = False
        for waiting in list(self._waiting):
            if waiting.turn.done():
                self._waiting.remove(waiting)
            elif self._exceeds_share(waiting):
                continue
            elif self._fits(waiting, held_up=held_up):
                self._waiting.remove(waiting)
                self._held[waiting.owner] += waiting.count
                waiting.turn.set_result(None)
            elif self._clock() - waiting.since >= self._patience_s / 3:
                held_up = True

    def _exceeds_share(self, waiting: _Waiting) -> bool:
        """Return whether a caller that has enough must let others go first."""
        held = self._held[waiting.owner]
        others_wait = any(other.owner.caller != waiting.owner.caller for other in self._waiting)
        return others_wait and held > 0 and held + waiting.count > self.half

    def _fits(self, waiting: _Waiting, *, held_up: bool) -> bool:
        """Return whether there is room; ``held_up`` says that the room is meant for another one."""
        small = waiting.owner.small
        after = waiting.count + sum(count for owner, count in self._held.items() if owner.small == small)
        if self.reserved + waiting.count > self._total:
            return False
        if small:
            return not held_up or after <= self._for_small
        return not held_up and after <= self._total - self._for_small
