"""The places of queued jobs, which many callers ask for and few reads of the store answer."""

import asyncio
import time
from collections import defaultdict
from dataclasses import dataclass, field

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.record import Job

KEEP_S = 0.5
"""Seconds for which the order of a queue is remembered."""


@dataclass
class _Order:
    """The places in one queue, by the ids of jobs, and when they were read."""

    places: dict[str, int] = field(default_factory=dict)
    read_at: float = float("-inf")
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Places:
    """Says how many jobs start before a queued one."""

    def __init__(self, store: JobStore) -> None:
        self._store = store
        self._orders: defaultdict[str, _Order] = defaultdict(_Order)

    async def of(self, job: Job) -> int | None:
        """Return the number of jobs that start before ``job``, or None if it is not queued.

        Raises StoreUnavailable.
        """
        if job.state != "queued":
            return None
        order, asked_at = self._orders[job.slot], time.monotonic()
        async with order.reading:
            # One that came after the order was read is not in it.
            known = job.id in order.places and asked_at - order.read_at < KEEP_S
            if not known and order.read_at < asked_at:
                read_at = time.monotonic()
                queue = await self._store.queue(job.slot)
                order.places = {waiting.id: place for place, waiting in enumerate(queue.waiting)}
                order.read_at = read_at
        return order.places.get(job.id)
