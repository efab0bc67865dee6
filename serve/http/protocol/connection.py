"""Ends the work on a request when its client leaves or when it times out."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from serve.problems import Problem

T = TypeVar("T")
logger = logging.getLogger("ray.serve")

TIMED_OUT = "the request reached its time limit before there was a result: send it again, with a longer `Request-Timeout` if you set one"


async def run_while_connected(request: Request, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """Return the result of ``work``.

    When the client leaves (ClientDisconnect) or it times out after ``timeout_s`` (504 problem), the
    work is cancelled and awaited.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, left}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if left.done():
            # The caller left, or the proxy, and so the connection, is gone.
            raise ClientDisconnect from left.exception()
        raise Problem(504, "timeout", TIMED_OUT)
    finally:
        pending = [unfinished for unfinished in (task, left) if not unfinished.done()]
        for unfinished in pending:
            unfinished.cancel()
        await asyncio.wait({task, left})
        for unfinished in pending:
            _log_failure(unfinished)


def _log_failure(cancelled: "asyncio.Future[Any]") -> None:
    """Log that work failed instead of ending when it was cancelled: nobody else learns about it.

    Of a problem only the type is logged, since its text may quote what was sent.
    """
    if not cancelled.cancelled() and (error := cancelled.exception()) is not None:
        shown = error.slug if isinstance(error, Problem) else repr(error)
        logger.info("work that was cancelled failed: %s", shown)


async def _disconnected(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
