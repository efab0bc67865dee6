"""Calls that are cancelled by Serve or by their caller leave no error behind."""

import asyncio
import gc
from collections.abc import Generator
from typing import Any, cast

import pytest
from ray.serve.exceptions import RequestCancelledError

from tests.unit.serve.fake_graph import (
    FakeConsumer,
)
from tests.unit.serve.pipelines.fake_handles import receive, swapper, video_handle
from tests.unit.serve.pipelines.request_builders import make_context


class ServeCancels:
    """A response and a stream that end with an error of Serve's when their request is cancelled."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.begun = asyncio.Event()

    def __getattr__(self, name: str) -> "ServeCancels":
        return self

    def options(self, **_: object) -> "ServeCancels":
        return self

    def remote(self, *_: object) -> "ServeCancels":
        return self

    def cancel(self) -> None:
        if not self.ended.done():
            self.ended.set_exception(RequestCancelledError("the-id"))

    async def _wait(self) -> Any:
        self.begun.set()
        return await asyncio.shield(self.ended)

    def __await__(self) -> Generator[Any, None, Any]:
        return self._wait().__await__()

    async def __anext__(self) -> Any:
        return await self._wait()


@pytest.mark.parametrize("serve_first", [True, False], ids=["Serve cancels first", "the caller cancels first"])
@pytest.mark.parametrize("kind", ["call", "stream"])
async def test_no_error_of_a_cancelled_call_is_left_for_asyncio_to_report(kind: str, serve_first: bool) -> None:
    lost: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: lost.append(context))
    handle = ServeCancels()
    call: asyncio.Future[Any]
    if kind == "call":
        call = asyncio.ensure_future(swapper(handle).identify([], "face_image", meter=make_context().meter))
    else:
        call = asyncio.ensure_future(receive(video_handle(cast(Any, handle), FakeConsumer()), make_context()))
    await handle.begun.wait()
    if serve_first:
        handle.cancel()
        await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.sleep(0)
    handle.ended.exception()
    del call, handle
    gc.collect()
    assert lost == []
