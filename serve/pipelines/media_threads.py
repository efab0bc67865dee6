"""Runs media code in threads, so that decoding and encoding never block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from deployments.errors import RequestRefused
from deployments.wire import Image
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import decode_image
from serve.pipelines.errors import MediaOverLimit

P = ParamSpec("P")
T = TypeVar("T")


class MediaThreads:
    """A pool of ``count`` threads for the media of all requests of a replica."""

    def __init__(self, count: int) -> None:
        self._executor = ThreadPoolExecutor(count, thread_name_prefix="media")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return the result of ``function``, called in a thread."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: function(*args, **kwargs))

    async def check(self, field: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like ``run``, but a faulty file raises RequestRefused or MediaOverLimit for ``field``."""
        try:
            return await self.run(function, *args, **kwargs)
        except MediaTooLarge as e:
            raise MediaOverLimit(field, str(e)) from None
        except MediaError as e:
            raise RequestRefused(field, str(e)) from None

    async def decode_image(self, field: str, data: bytes, max_pixels: int) -> Image:
        """Return the pixels of an image file that was sent as ``field``."""
        return await self.check(field, decode_image, data, max_pixels=max_pixels)
