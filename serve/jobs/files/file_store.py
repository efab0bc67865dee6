"""The files of jobs, requests, results and previews, in any folder or bucket that fsspec opens."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import BinaryIO, Protocol

from deployments.task_end import wait_for_end
from serve.media.spool import Spool


class FileStore(Protocol):
    """Named files. A file is there whole or not at all. Raises StoreUnavailable."""

    async def put(self, key: str, data: bytes | BinaryIO) -> None:
        """Write a file. A call that is cancelled leaves none, once what it has begun has ended."""

    async def get(self, key: str) -> bytes | None:
        """Return a file's content, or None if there is none."""

    async def size(self, key: str) -> int | None:
        """Return a file's size in bytes, or None if there is none."""

    async def free_bytes(self) -> int | None:
        """Return how many bytes are free where the files are; None for a bucket."""

    def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from ``start`` to ``end``, which is not included, in pieces."""

    async def delete(self, key: str) -> None:
        """Delete a file, or do nothing if there is none."""

    async def delete_all(self, folder: str) -> None:
        """Delete all files in a folder, which is named without a slash at its end."""

    async def list(self, folder: str) -> list[tuple[str, float]]:
        """Return the keys in a folder and when each file was written, in seconds since the epoch.

        The folder is named without a slash at its end; the folders in it are searched as well.
        """


async def fetch_to_disk(files: FileStore, key: str, size: int) -> Spool:
    """Return a local copy of a file of ``size`` bytes; raise FileNotFoundError if there is none."""
    spool = Spool.empty()
    try:
        async with aclosing(files.read(key, 0, size)) as pieces:
            async for piece in pieces:
                writing = asyncio.ensure_future(asyncio.to_thread(spool.write, piece))
                await wait_for_end(writing)  # a thread must not write into a file that is closed
                writing.result()
    except BaseException:
        spool.close()
        raise
    return spool
