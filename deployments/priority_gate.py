"""Admits a number of holders at a time; some waiters go before others, but never for ever."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

IN_A_ROW = 3
"""How many waiters may go before one that came earlier and is not urgent."""


class PriorityGate:
    """A semaphore with two queues: urgent waiters, and the others.

    Each queue is served first come, first served. Besides the ``places`` for everybody there are
    ``reserved`` ones for urgent holders, who thus need not wait for the end of long work. While
    both queues have waiters, one of the others gets a place after every ``IN_A_ROW`` urgent ones.
    """

    def __init__(self, places: int, reserved: int = 0) -> None:
        self._places = places
        self._free = places + reserved
        self._held_by_others = 0
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._others: deque[asyncio.Future[None]] = deque()
        self._urgent_in_a_row = 0

    @asynccontextmanager
    async def place(self, *, urgent: bool = False) -> AsyncIterator[None]:
        """Hold a place for the block, which begins as soon as one is free."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._urgent if urgent else self._others).append(turn)
        self._hand_out()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                (self._urgent if urgent else self._others).remove(turn)
            else:  # the place came at the same moment
                self._give_back(urgent=urgent)
            raise
        try:
            yield
        finally:
            self._give_back(urgent=urgent)

    def _give_back(self, *, urgent: bool) -> None:
        self._free += 1
        self._held_by_others -= not urgent
        self._hand_out()

    def _hand_out(self) -> None:
        """Give the free places to those whose turn it is."""
        while self._free:
            urgent = next((turn for turn in self._urgent if not turn.done()), None)
            other = None
            if self._held_by_others < self._places:
                other = next((turn for turn in self._others if not turn.done()), None)
            if urgent is not None and (other is None or self._urgent_in_a_row < IN_A_ROW):
                self._urgent.remove(urgent)
                self._urgent_in_a_row = self._urgent_in_a_row + 1 if other is not None else 0
                urgent.set_result(None)
            elif other is not None:
                self._others.remove(other)
                self._urgent_in_a_row = 0
                self._held_by_others += 1
                other.set_result(None)
            else:
                return
            self._free -= 1
