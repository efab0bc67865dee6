"""The memory that the bodies of one proxy may occupy, and which body must make room for others."""

import asyncio
from collections import deque

from serve.problems import Problem, unavailable

MAX_WAITING = 64
"""Number of bodies that wait for room; each may have some 100 KiB in the connection's buffers."""
BUSY_STALL_S = 1.0
"""Seconds without progress after which a body loses its room if others wait for it."""
_CHECK_S = 0.2
"""Seconds between two looks for bodies that stall, while others wait."""


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
        self._ends = self._loop.time() + total_s
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

    def __init__(self, room: "BodyRoom", size: int) -> None:
        self._room = room
        self.size = size

    def shrink(self, size: int) -> None:
        """Give back all but ``size`` bytes."""
        freed, self.size = self.size - size, size
        self._room.give_back(freed)

    def release(self) -> None:
        """Give everything back; a second call does nothing."""
        self.shrink(0)


class BodyRoom:
    """Room for ``capacity`` bytes of bodies, given in the order in which it is asked for.

    While somebody waits, bodies that stall lose their room, so that nobody can occupy it for long
    without sending.
    """

    def __init__(self, capacity: int, *, queue_timeout_s: float) -> None:
        self.capacity = capacity
        self.free = capacity
        self._queue_timeout_s = queue_timeout_s
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._arriving: dict[Upload, Claim] = {}

    async def take(self, size: int) -> Claim:
        """Return a claim of ``size`` bytes once there is room, or raise a 503 problem."""
        if self._waiting or size > self.free:
            if size > self.capacity or len(self._waiting) >= MAX_WAITING:
                raise no_room(self._queue_timeout_s)
            await self._wait(size)
        else:
            self.free -= size
        return Claim(self, size)

    async def _wait(self, size: int) -> None:
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        place = (size, granted)
        self._waiting.append(place)
        try:
            async with asyncio.timeout(self._queue_timeout_s):
                while not granted.done():
                    self._drop_stalled()
                    await asyncio.wait([granted], timeout=_CHECK_S)
        except BaseException as error:
            if granted.done():
                self.give_back(size)
            else:
                self._waiting.remove(place)
                self._grant()
            if isinstance(error, TimeoutError):
                raise no_room(self._queue_timeout_s) from None
            raise

    def watch(self, upload: Upload, claim: Claim) -> None:
        """Let ``upload`` lose its claim if it stalls while others wait."""
        self._arriving[upload] = claim

    def forget(self, upload: Upload) -> None:
        """Let a body that is complete, or that has ended, keep its claim until it is released."""
        self._arriving.pop(upload, None)

    def give_back(self, size: int) -> None:
        """Free ``size`` bytes, and give them to the bodies that wait."""
        self.free += size
        self._grant()

    def _grant(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free:
            size, granted = self._waiting.popleft()
            self.free -= size
            granted.set_result(None)

    def _drop_stalled(self) -> None:
        """Drop bodies, the longest stall first, until the first one that waits has room."""
        free = self.free + sum(claim.size for upload, claim in self._arriving.items() if upload.dropped)
        for upload in sorted(self._arriving, key=lambda upload: -upload.stalled_s):
            if free >= self._waiting[0][0] or upload.stalled_s < BUSY_STALL_S:
                return
            if not upload.dropped:
                upload.drop()
                free += self._arriving[upload].size


def no_room(retry_after_s: float) -> Problem:
    """Return a 503 for a body for which there is no memory."""
    return unavailable("the service is receiving too many bodies at once", retry_after_s)
