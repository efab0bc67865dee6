"""Waits for stores that are unavailable, so that no work is lost meanwhile."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from serve.jobs.store.job_store import StoreUnavailable

T = TypeVar("T")
logger = logging.getLogger("ray.serve")

RETRY_S = 1.0
"""Seconds between two tries while a store is unavailable."""
PATIENCE_S = 120.0
"""Seconds for which a job waits for a store that is unavailable. Whoever finds the job later runs
it again."""
WARN_EVERY_S = 10.0
"""Seconds between two lines in the log about one outage: the disk of the log may be what is full.
"""


async def patiently(call: Callable[[], Awaitable[T]], job_id: str) -> T:
    """Return the result of ``call``, which is made again while its store is unavailable.

    A call that is repeated may have been done before: its answer can be lost, too. Raises
    StoreUnavailable after ``PATIENCE_S``.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return await call()
        except StoreUnavailable as error:
            if time.monotonic() > deadline:
                raise
            logger.warning("job %s waits for its store: %s", job_id, error)
            await asyncio.sleep(RETRY_S)


class Outages:
    """Lets loops go on while the store is unavailable, and logs that now and then."""

    def __init__(self) -> None:
        self._warned_at = float("-inf")

    @contextmanager
    def survived(self) -> Iterator[None]:
        """End the block, and go on after it, if the store is unavailable."""
        try:
            yield
        except StoreUnavailable as error:
            if time.monotonic() - self._warned_at > WARN_EVERY_S:
                self._warned_at = time.monotonic()
                logger.warning("the store of jobs is unavailable: %s", error)
