"""Waiting for work that must have ended before its caller goes on.

Serve cancels a call twice when the request that made it is cancelled: once for the caller's
``cancel()``, and once more because it cancels what a request that ends has called. The second one
would otherwise interrupt the clean-up that the first one has begun.
"""

import asyncio
from typing import Any


async def wait_for_end(work: "asyncio.Future[Any]") -> None:
    """Wait until ``work`` is done, even if the waiting task is cancelled meanwhile.

    Raises CancelledError afterwards if it was.
    """
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            cancelled = True
    if not work.cancelled():
        work.exception()  # marks it as retrieved; the caller gets it from the future
    if cancelled:
        raise asyncio.CancelledError
