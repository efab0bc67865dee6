"""Decodes callers' pictures in worker processes, within budgets of time, memory and places."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from deployments.wire import Image
from serve.config import IngressSettings, Limits
from serve.media.errors import MediaError
from serve.media.messages import Message
from serve.media.spool import descriptor_of
from serve.media.worker_pool import WorkerPool
from serve.media.worker_process import WorkerDied, WorkerProcess
from serve.pipelines.byte_budget import ByteBudget, Reservation
from serve.pipelines.errors import blame
from serve.pipelines.fair_queue import FairQueue

T = TypeVar("T")

TRIES = 2
"""How often a file is decoded whose process was ended by the file, or by something else."""
SLACK_BYTES = 2**28
"""Memory that a process may use beyond what a file claims; then its allocations fail."""
_PROBE_CPU_S = 2.0


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

    def __init__(self, settings: IngressSettings, limits: Limits) -> None:
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
        left_s = self._limits.max_image_cpu_s
        claims = []
        for picture in pictures:
            claim, _ = await self._ask(picture, "probe", caller, cpu_s=_PROBE_CPU_S, working_bytes=0)
            claims.append(claim)
        async with self.memory.reserve(beside_bytes + _need(pictures, claims)) as reservation:
            decoded: dict[str, list[Image]] = {picture.field: [] for picture in pictures}
            for picture, claim in zip(pictures, claims, strict=True):
                working_bytes = claim["working_bytes"]
                answer, pixels = await self._ask(picture, "decode", caller, cpu_s=left_s, working_bytes=working_bytes)
                left_s -= answer["cpu_s"]
                assert pixels is not None
                decoded[picture.field].append(pixels)
            held_bytes = _held(pictures, claims)
            reservation.resize(min(reservation.count, beside_bytes + held_bytes))
            yield DecodedPictures(decoded, reservation, held_bytes)

    async def _ask(
        self, picture: Picture, operation: str, caller: str, *, cpu_s: float, working_bytes: int
    ) -> tuple[Message, Image | None]:
        async def ask(worker: WorkerProcess) -> tuple[Message, Image | None]:
            with descriptor_of(picture.data) as file:
                return await worker.ask(
                    operation,
                    file=file,
                    cpu_s=cpu_s,
                    memory_bytes=SLACK_BYTES + working_bytes,
                    max_pixels=self._limits.max_image_pixels,
                    max_scans=self._limits.max_image_scans,
                    max_side=picture.max_side,
                )

        async with self._places.place(caller):
            with blame(picture.field, picture.part):
                return await self._attempt(ask)

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
