"""Admits a number of holders at a time; some waiters go before others, but never for ever."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

IN_A_ROW = 3
"""How many waiters may go before one that came earlier and is not urgent."""


class PriorityGate:
    """A semaphore with two queues: urgent waiters, and the others.

    Each queue is served first come, first served. While both have waiters, one of the others gets
    a place after every ``IN_A_ROW`` urgent ones.
    """

    def __init__(self, places: int) -> None:
        self._free = places
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._urgent_in_a_row = 0

    @asynccontextmanager
    async def place(self, *, urgent: bool = False) -> AsyncIterator[None]:
        """Hold a place for the block, which begins as soon as one is free."""
        if self._free:
            self._free -= 1
        else:
            await self._wait(self._urgent if urgent else self._others)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, queue: "deque[asyncio.Future[None]]") -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                queue.remove(turn)
            else:  # the place came at the same moment
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Give a place to the next waiter, or keep it free."""
        skipped = self._urgent_in_a_row >= IN_A_ROW and any(not turn.done() for turn in self._others)
        for queue in (self._others, self._urgent) if skipped else (self._urgent, self._others):
            turn = next((turn for turn in queue if not turn.done()), None)
            if turn is not None:
                queue.remove(turn)
                turn.set_result(None)
                self._urgent_in_a_row = self._urgent_in_a_row + 1 if queue is self._urgent else 0
                return
        self._free += 1
