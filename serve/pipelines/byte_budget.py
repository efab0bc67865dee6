"""The memory that decoded media of all requests may take, reserved before anything is decoded."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serve.pipelines.errors import MediaBusy


class Reservation:
    """The share of one request. ``count`` is its size in bytes."""

    def __init__(self, budget: "ByteBudget", count: int) -> None:
        self._budget = budget
        self.count = count

    def resize(self, count: int) -> None:
        """Change the size without waiting; raise ``MediaBusy`` if there is no room to grow."""
        self._budget.exchange(self.count, count)
        self.count = count


@dataclass(frozen=True)
class _Waiting:
    count: int
    turn: asyncio.Future[None]


class ByteBudget:
    """Gives out ``total`` bytes in the order of the requests.

    A request reserves all it needs at once, so that no two can wait for each other. One that fits
    into what is left does not wait behind a larger one that does not. One that needs more than
    ``total`` waits until it is alone. A request that waits longer than ``patience_s`` is refused
    with ``MediaBusy``.
    """

    def __init__(self, total: int, patience_s: float) -> None:
        self._total = total
        self._patience_s = patience_s
        self._waiting: deque[_Waiting] = deque()
        self.reserved = 0
        """The bytes that are given out now."""

    @asynccontextmanager
    async def reserve(self, count: int) -> AsyncIterator[Reservation]:
        """Hold ``count`` bytes while the block runs."""
        await self._wait(min(count, self._total))
        reservation = Reservation(self, min(count, self._total))
        try:
            yield reservation
        finally:
            self.exchange(reservation.count, 0)

    def exchange(self, old: int, new: int) -> None:
        """Replace ``old`` reserved bytes by ``new``; raise ``MediaBusy`` if there is no room."""
        if new > old and self.reserved - old + new > self._total:
            raise MediaBusy("the memory for decoded files is in use", self._patience_s)
        self.reserved += new - old
        self._serve()

    async def _wait(self, count: int) -> None:
        waiting = _Waiting(count, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._serve()
        try:
            async with asyncio.timeout(self._patience_s):
                await waiting.turn
        except BaseException as error:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif waiting.turn.done() and not waiting.turn.cancelled():
                self.exchange(count, 0)  # the turn came at the moment of giving up
            if isinstance(error, TimeoutError):
                raise MediaBusy("the memory for decoded files is in use", self._patience_s) from None
            raise

    def _serve(self) -> None:
        for waiting in list(self._waiting):
            if waiting.turn.done() or self.reserved + waiting.count <= self._total:
                self._waiting.remove(waiting)
                if not waiting.turn.done():
                    self.reserved += waiting.count
                    waiting.turn.set_result(None)
