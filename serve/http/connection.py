"""Ends the work on a request when its client leaves or when it times out."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import ClientDisconnect, Request

from serve.http.problems import Problem

T = TypeVar("T")


async def run_while_connected(
    request: Request, work: Coroutine[Any, Any, T], timeout_s: float, *, advice: Callable[[], str]
) -> T:
    """Return the result of ``work``.

    When the client leaves (ClientDisconnect) or it times out after ``timeout_s`` (504 problem), the
    work is cancelled and awaited. ``advice`` is called at the timeout and returns how the caller
    can avoid it, as the end of a sentence.
    """
    task = asyncio.ensure_future(work)
    left = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, left}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if left.done():
            raise ClientDisconnect
        raise Problem(504, "timeout", f"the request reached its limit of {timeout_s:g} s; {advice()}")
    finally:
        for pending in (task, left):
            pending.cancel()
        await asyncio.wait({task, left})


async def _disconnected(request: Request) -> None:
    """Return when the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
