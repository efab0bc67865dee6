"""Decodes callers' pictures in worker processes, within budgets of time, memory and places."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from deployments.wire import Image
from serve.config import Limits, RunnerSettings
from serve.media.errors import MediaError
from serve.media.spool import descriptor_of
from serve.media.workers.messages import Message
from serve.media.workers.pool import WorkerPool
from serve.media.workers.process import WorkerDied, WorkerProcess
from serve.pipelines.byte_budget import ByteBudget, Reservation
from serve.pipelines.errors import blame
from serve.pipelines.fair_queue import FairQueue

T = TypeVar("T")

TRIES = 2
"""The maximum number of attempts to decode a file whose worker died."""
SLACK_BYTES = 2**28
"""Memory that a process may use beyond what a file claims; then its allocations fail."""
SMALL_BYTES = 8 * 2**20
"""What a picture may claim to be decoded without a second look: half a megapixel of JPEG."""


@dataclass(frozen=True)
class Picture:
    """An image that was sent as ``field``; ``part`` is its place in an array: "image 2 of 3".

    A picture with a ``max_side`` is scaled down to that many pixels. ``copies`` is how often its
    pixels are in memory at the same time after it was decoded.
    """

    field: str
    data: bytes
    part: str | None = None
    max_side: int | None = None
    copies: int = 1


@dataclass
class _Budget:
    """The CPU time that is left for the pictures of a request, in seconds."""

    left_s: float


class DecodedPictures:
    """Decoded pictures, uint8 RGB ``[height, width, 3]``, and the memory reserved for them."""

    def __init__(self, pictures: dict[str, list[Image]], reservation: Reservation, count: int) -> None:
        self._pictures = pictures
        self._reservation = reservation
        self._bytes = count

    def of(self, field: str) -> list[Image]:
        """Return the pictures of ``field``, in order."""
        return self._pictures[field]

    def drop(self) -> None:
        """Free all pictures and the memory that is reserved for them."""
        self._pictures.clear()
        self._reservation.resize(max(0, self._reservation.count - self._bytes))
        self._bytes = 0


class Decoder:
    """The processes of a replica that decode files, and the budgets that all requests share."""

    def __init__(self, settings: RunnerSettings, limits: Limits) -> None:
        patience_s = settings.max_media_wait_s
        self.pool = WorkerPool(settings.media_processes)
        self.memory = ByteBudget(settings.max_decoded_bytes, patience_s)
        self._places = FairQueue.with_halves(settings.media_processes, patience_s)
        self._limits = limits

    @asynccontextmanager
    async def pictures(
        self, pictures: Sequence[Picture], caller: str, *, beside_bytes: int = 0
    ) -> AsyncIterator["DecodedPictures"]:
        """Yield ``pictures``, decoded.

        The memory that they and ``beside_bytes`` need is reserved before the first is decoded, and
        what is left of it is held while the block runs. Raises RequestRefused or MediaOverLimit for
        a file that is at fault, and MediaBusy if others use the memory or the processes for too
        long.
        """
        # A video is read a few frames at a time, so it needs its claim only at the worst.
        beside_bytes = min(beside_bytes, self.memory.half)
        async with AsyncExitStack() as stack:
            # Small pictures, as most are, are decoded at once. Larger ones are only looked at, and
            # then all are decoded within a reservation for what their headers claim.
            first_bytes = beside_bytes + SMALL_BYTES * len(pictures)
            reservation = await stack.enter_async_context(self.memory.reserve(first_bytes, caller))
            budget = _Budget(self._limits.max_image_cpu_s)
            results = [await self._ask(picture, caller, budget, allowed_bytes=SMALL_BYTES) for picture in pictures]
            claims = [claim for claim, _ in results]
            if any(pixels is None for _, pixels in results):
                results.clear()
                await stack.aclose()
                needed_bytes = beside_bytes + _need(pictures, claims)
                reservation = await stack.enter_async_context(self.memory.reserve(needed_bytes, caller))
                for picture, claim in zip(pictures, claims, strict=True):
                    results.append(await self._ask(picture, caller, budget, allowed_bytes=int(claim["working_bytes"])))
            held_bytes = _held(pictures, claims)
            reservation.resize(min(reservation.count, beside_bytes + held_bytes))
            decoded: dict[str, list[Image]] = {picture.field: [] for picture in pictures}
            for picture, (_, pixels) in zip(pictures, results, strict=True):
                if pixels is None:
                    raise RuntimeError("a media worker did not decode a picture whose claim was granted")
                decoded[picture.field].append(pixels)
            results.clear()
            yield DecodedPictures(decoded, reservation, held_bytes)

    async def check(self, pictures: Sequence[Picture], caller: str) -> None:
        """Look at the headers of ``pictures``; raise what ``pictures`` would raise for them."""
        budget = _Budget(self._limits.max_image_cpu_s)
        for picture in pictures:
            await self._ask(picture, caller, budget, allowed_bytes=0)

    async def _ask(
        self, picture: Picture, caller: str, budget: "_Budget", *, allowed_bytes: int
    ) -> tuple[Message, Image | None]:
        """Return what the header of ``picture`` claims, and its pixels if that is allowed."""

        async def ask(worker: WorkerProcess) -> tuple[Message, Image | None]:
            with descriptor_of(picture.data) as file:
                return await worker.ask(
                    "decode",
                    file=file,
                    cpu_s=budget.left_s,
                    memory_bytes=SLACK_BYTES + allowed_bytes,
                    allowed_bytes=allowed_bytes,
                    max_pixels=self._limits.max_image_pixels,
                    max_scans=self._limits.max_image_scans,
                    max_side=picture.max_side,
                )

        async with self._places.place(caller):
            with blame(picture.field, picture.part):
                claim, pixels = await self._attempt(ask)
        budget.left_s -= claim["cpu_s"]
        return claim, pixels

    async def _attempt(self, ask: Callable[[WorkerProcess], Awaitable[T]]) -> T:
        """Return what ``ask`` returns; it is called again, with another process, if one dies."""
        for attempt in range(1, TRIES + 1):
            try:
                async with self.pool.lease() as worker:
                    return await ask(worker)
            except WorkerDied as died:
                if attempt == TRIES:
                    raise deadly(died) from None
        raise AssertionError("unreachable")


def deadly(died: WorkerDied) -> MediaError:
    """Return the error for a file in whose decoding processes end."""
    return MediaError(f"the file cannot be decoded: {died}; save it again in an ordinary format")


def _need(pictures: Sequence[Picture], claims: Sequence[Message]) -> int:
    """Return the most bytes that the pictures need at any time, decoded one after the other."""
    peaks = [_held(pictures[:i], claims) + int(claim["working_bytes"]) for i, claim in enumerate(claims)]
    return max((*peaks, _held(pictures, claims)))


def _held(pictures: Sequence[Picture], claims: Sequence[Message]) -> int:
    """Return the bytes that the pictures need once they are decoded."""
    return sum(picture.copies * int(claim["result_bytes"]) for picture, claim in zip(pictures, claims, strict=False))
