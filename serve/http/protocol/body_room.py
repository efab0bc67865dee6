"""The memory that the bodies of one proxy may occupy, and which body must make room for others."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from serve.problems import Problem, unavailable

MAX_WAITING = 64
"""Number of bodies that wait for room, half of them of one caller at most.

Each may have some 100 KiB in the connection's buffers.
"""
BUSY_STALL_S = 1.0
"""Seconds without progress after which a body loses its room if others wait for it."""
GIVE_WAY_AFTER = 1 / 3
"""The share of the longest wait after which a caller with more than half of a room gives way."""
_CHECK_S = 0.2
"""Seconds between two looks for bodies that must give way, while others wait."""


class Upload:
    """The progress of one body. It must arrive in stretches of ``stretch_bytes`` bytes.

    Each stretch, except the last, which is shorter, may take ``stall_s``, and the whole body
    ``total_s``. ``limit`` then ends the task that receives the body.
    """

    def __init__(self, limit: asyncio.Timeout, *, stretch_bytes: float, stall_s: float, total_s: float) -> None:
        self._limit = limit
        self._stretch_bytes = stretch_bytes
        self._stall_s = stall_s
        self._loop = asyncio.get_running_loop()
        self.began = self._loop.time()
        self._ends = self.began + total_s
        self.arrived = 0
        self.dropped = False
        self._begin_stretch()

    def _begin_stretch(self) -> None:
        self._stretch_end = self.arrived + self._stretch_bytes
        self._stretch_began = self._loop.time()
        self._limit.reschedule(min(self._stretch_began + self._stall_s, self._ends))

    @property
    def stalled_s(self) -> float:
        """Seconds since the present stretch began."""
        return self._loop.time() - self._stretch_began

    def note(self, arrived: int) -> None:
        """Count bytes that have arrived."""
        self.arrived += arrived
        if self.arrived >= self._stretch_end:
            self._begin_stretch()

    def pause(self) -> None:
        """Stop the clock while the service does not read."""
        self._limit.reschedule(None)

    def resume(self) -> None:
        """Start the clock of the present stretch again."""
        self._begin_stretch()

    def drop(self) -> None:
        """End the body, so that others have its room."""
        self.dropped = True
        self._limit.reschedule(self._loop.time())


class Claim:
    """A part of a room that is taken, until ``release``."""

    def __init__(self, room: "BodyRoom", size: int, caller: str) -> None:
        self._room = room
        self.size = size
        self.caller = caller

    def shrink(self, size: int) -> None:
        """Give back all but ``size`` bytes."""
        freed, self.size = self.size - size, size
        self._room.give_back(freed, self.caller)

    def release(self) -> None:
        """Give everything back; a second call does nothing."""
        self.shrink(0)


@dataclass(frozen=True, eq=False)
class _Place:
    """A place in the queue for a room."""

    size: int
    caller: str
    since: float
    granted: "asyncio.Future[None]"


class BodyRoom:
    """Room for ``capacity`` bytes of bodies, given in the order in which it is asked for.

    While others wait, one caller gets at most half of it, or room for one body; bodies that stall
    lose their room; and so do the oldest bodies of a caller who has more than half, once another
    one has waited for some time. So nobody can occupy it for long without sending, nor alone.
    """

    def __init__(self, capacity: int, *, queue_timeout_s: float) -> None:
        self.capacity = capacity
        self.free = capacity
        self._queue_timeout_s = queue_timeout_s
        self._waiting: list[_Place] = []
        self._arriving: dict[Upload, Claim] = {}
        self._held: Counter[str] = Counter()

    async def take(self, size: int, caller: str) -> Claim:
        """Return a claim of ``size`` bytes once there is room, or raise a 503 problem."""
        if self._waiting or size > self.free:
            theirs = sum(place.caller == caller for place in self._waiting)
            if size > self.capacity or len(self._waiting) >= MAX_WAITING or theirs >= max(1, MAX_WAITING // 2):
                raise no_room(self._queue_timeout_s)
            await self._wait(size, caller)
        else:
            self._give(size, caller)
        return Claim(self, size, caller)

    async def _wait(self, size: int, caller: str) -> None:
        loop = asyncio.get_running_loop()
        place = _Place(size, caller, since=loop.time(), granted=loop.create_future())
        self._waiting.append(place)
        self._grant()
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                while not place.granted.done():
                    self._make_room(loop.time())
                    await asyncio.wait([place.granted], timeout=_CHECK_S)
        except BaseException as error:
            if place.granted.done():
                self.give_back(size, caller)
            else:
                self._waiting.remove(place)
                self._grant()
            if isinstance(error, TimeoutError):
                raise no_room(self._queue_timeout_s) from None
            raise

    def watch(self, upload: Upload, claim: Claim) -> None:
        """Let ``upload`` lose its claim if it must give way to others."""
        self._arriving[upload] = claim

    def forget(self, upload: Upload) -> None:
        """Let a body that is complete, or that has ended, keep its claim until it is released."""
        self._arriving.pop(upload, None)

    def give_back(self, size: int, caller: str) -> None:
        """Free ``size`` bytes, and give them to the bodies that wait."""
        self._give(-size, caller)
        if not self._held[caller]:
            del self._held[caller]
        self._grant()

    def _give(self, size: int, caller: str) -> None:
        self.free -= size
        self._held[caller] += size

    def _grant(self) -> None:
        while (place := self._first()) is not None and place.size <= self.free:
            self._waiting.remove(place)
            self._give(place.size, place.caller)
            place.granted.set_result(None)

    def _first(self) -> _Place | None:
        """Return the first place whose caller need not let others go first."""
        callers = {place.caller for place in self._waiting}
        for place in self._waiting:
            held = self._held[place.caller]
            if len(callers) == 1 or not held or held + place.size <= self.capacity // 2:
                return place
        return None

    def _make_room(self, now: float) -> None:
        """Drop bodies until the first one that may be next has room."""
        place = self._first()
        if place is None:
            return
        free = self.free + sum(claim.size for upload, claim in self._arriving.items() if upload.dropped)
        for upload in self._giving_way(place, now):
            if free >= place.size:
                return
            upload.drop()
            free += self._arriving[upload].size

    def _giving_way(self, place: _Place, now: float) -> Iterator[Upload]:
        """Yield the bodies that may be dropped for ``place``.

        They are those that stall, the longest stall first, and then the oldest ones of callers that
        have more than half, as long as each of them has more than half.
        """
        for upload in sorted(self._arriving, key=lambda upload: -upload.stalled_s):
            if not upload.dropped and upload.stalled_s >= BUSY_STALL_S:
                yield upload
        if now - place.since < GIVE_WAY_AFTER * self._queue_timeout_s:
            return
        for upload in sorted(self._arriving, key=lambda upload: upload.began):
            caller = self._arriving[upload].caller
            if not upload.dropped and caller != place.caller and self._exceeds_half(caller):
                yield upload

    def _exceeds_half(self, caller: str) -> bool:
        """Return whether a caller has several bodies, of more than half of the room together."""
        theirs = [(upload, claim.size) for upload, claim in self._arriving.items() if claim.caller == caller]
        dropped = sum(size for upload, size in theirs if upload.dropped)
        staying = sum(not upload.dropped for upload, _ in theirs)
        return staying > 1 and self._held[caller] - dropped > self.capacity // 2


def no_room(retry_after_s: float) -> Problem:
    """Return a 503 for a body for which there is no memory."""
    return unavailable("the service is receiving too many bodies at once", retry_after_s)
