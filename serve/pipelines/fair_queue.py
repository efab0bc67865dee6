"""A limited number of places, shared fairly between callers."""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serve.pipelines.errors import MediaBusy


class FairQueue:
    """Gives out ``places``: to the callers in turn, and to each caller's requests in order.

    One caller holds at most ``per_caller`` of them, so nobody can hold all. A request that waits
    longer than ``patience_s`` seconds is refused with ``MediaBusy``.
    """

    def __init__(self, places: int, per_caller: int, patience_s: float) -> None:
        self._free = places
        self._per_caller = per_caller
        self._patience_s = patience_s
        self._held: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @classmethod
    def with_halves(cls, places: int, patience_s: float) -> "FairQueue":
        """Return a queue in which one caller holds at most half of the places, rounded up."""
        return cls(places, (places + 1) // 2, patience_s)

    @asynccontextmanager
    async def place(self, caller: str) -> AsyncIterator[None]:
        """Hold a place while the block runs."""
        await self._wait(caller)
        try:
            yield
        finally:
            self._give_back(caller)

    async def _wait(self, caller: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        self._serve()
        try:
            async with asyncio.timeout(self._patience_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # the place came at the moment of giving up
                self._give_back(caller)
            self._forget(caller, turn)
            if isinstance(error, TimeoutError):
                raise MediaBusy("too many files are being decoded", self._patience_s) from None
            raise

    def _give_back(self, caller: str) -> None:
        self._free += 1
        self._held[caller] -= 1
        if not self._held[caller]:
            del self._held[caller]
        self._serve()

    def _forget(self, caller: str, turn: asyncio.Future[None]) -> None:
        if (turns := self._waiting.get(caller)) is not None and turn in turns:
            turns.remove(turn)
            if not turns:
                del self._waiting[caller]

    def _serve(self) -> None:
        """Give the free places to those whose turn it is."""
        while self._free and (caller := self._next_caller()) is not None:
            turn = self._waiting[caller].popleft()
            if self._waiting[caller]:
                self._waiting.move_to_end(caller)
            else:
                del self._waiting[caller]
            if not turn.done():
                self._free -= 1
                self._held[caller] += 1
                turn.set_result(None)

    def _next_caller(self) -> str | None:
        return next((caller for caller in self._waiting if self._held[caller] < self._per_caller), None)
