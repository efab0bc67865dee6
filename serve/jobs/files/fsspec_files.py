"""The files of jobs, in a folder or in any bucket that fsspec opens."""

import asyncio
import logging
import re
import shutil
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from tempfile import NamedTemporaryFile
from typing import Any, BinaryIO, TypeVar

from fsspec import get_filesystem_class
from fsspec.core import url_to_fs
from fsspec.utils import get_protocol

from serve.jobs.files.local_files import LocalFiles
from serve.jobs.store.job_store import StoreUnavailable

logger = logging.getLogger("ray.serve")

T = TypeVar("T")

THREADS = 8
"""How many calls are made at the same time; further ones wait."""
PIECE_BYTES = 1 << 20
REMOTE_PIECE_BYTES = 4 << 20
"""How much of a file is read at a time, from a folder and from a bucket."""
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that brings the file system of a protocol."""
_KEY = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*", re.ASCII)


class FsspecFiles:
    """A FileStore at a URL of fsspec: a folder, `s3://`, `gs://`, or `memory://` for tests.

    Raises ValueError for a key that leaves it, and FileNotFoundError where a file that is read is
    not there.
    """

    def __init__(self, url: str, *, fsync: bool = False, **options: Any) -> None:
        options = {"use_listings_cache": False, **options}  # other replicas write, too
        try:
            self._system, self._root = url_to_fs(url, **options)
        except ImportError as error:
            raise StoreUnavailable(f"The files of jobs cannot be kept in {url!r}: {missing_package(url) or error}") from error
        except ValueError as error:  # an unknown protocol
            raise StoreUnavailable(f"The files of jobs cannot be kept in {url!r}: {error}") from error
        self._local = LocalFiles(self._root, fsync=fsync) if "file" in _protocols(self._system) else None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="jobs-files")

    def close(self) -> None:
        """End the threads, once their current calls are done."""
        self._threads.shutdown()

    async def put(self, key: str, data: bytes | BinaryIO) -> None:
        """Write a file, which readers see when it is whole.

        A call that is cancelled leaves none: what its thread still writes is deleted.
        """
        path = self._path(key)
        await self._run(self._write, path, data, undo=lambda _: self._discard(path))

    async def get(self, key: str) -> bytes | None:
        """Return a file's content."""
        try:
            content: bytes = await self._run(self._system.cat_file, self._path(key))
        except FileNotFoundError:
            return None
        return content

    async def size(self, key: str) -> int | None:
        """Return a file's size in bytes."""
        try:
            return int(await self._run(self._system.size, self._path(key)))
        except FileNotFoundError:
            return None

    async def free_bytes(self) -> int | None:
        """Return how many bytes are free on the disk of a folder."""
        return None if self._local is None else await self._run(self._local.free_bytes)

    async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from ``start`` to ``end``, which is not included, in pieces."""
        path = self._path(key)
        if self._local is None:
            while start < end:
                piece = await self._run(self._system.cat_file, path, start, min(end, start + REMOTE_PIECE_BYTES))
                if not piece:
                    return
                start += len(piece)
                yield piece
            return
        # An open file can be read to its end even if it is deleted meanwhile.
        file: BinaryIO = await self._run(open, path, "rb", undo=_close_opened)
        try:
            await self._run(file.seek, start)
            while start < end and (piece := await self._run(file.read, min(PIECE_BYTES, end - start))):
                start += len(piece)
                yield piece
        finally:
            # Closing waits for a read that a cancelled caller has left, so not in the event loop.
            self._threads.submit(file.close)

    async def delete(self, key: str) -> None:
        """Delete a file."""
        try:
            await self._run(self._delete, self._path(key))
        except FileNotFoundError:
            return

    async def delete_all(self, folder: str) -> None:
        """Delete all files in a folder."""
        try:
            await self._run(self._delete_all, self._path(folder))
        except FileNotFoundError:
            return

    async def list(self, folder: str) -> list[tuple[str, float]]:
        """Return the keys in a folder and when each file was written.

        A file whose name is not a key was put there by somebody else, and is left out.
        """
        path = self._path(folder)
        if self._local is not None:
            found = await self._run(self._local.list, path)
        else:
            found = await self._run(_list, self._system, self._root, path)
        return [(key, written_at) for key, written_at in found if _KEY.fullmatch(key)]

    def _path(self, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise ValueError(f"{key!r} is not the key of a file.")
        return f"{self._root.rstrip('/')}/{key}"

    async def _run(self, call: Callable[..., T], *values: Any, undo: "Callable[[Future[Any]], None] | None" = None) -> T:
        """Let a thread make a call.

        A thread cannot be stopped. If a call is cancelled that has begun, ``undo`` follows its end,
        and gets what it ended with.
        """
        try:
            future = self._threads.submit(call, *values)
            try:
                return await asyncio.wrap_future(future)
            except asyncio.CancelledError:
                if undo is not None and not future.cancel():
                    future.add_done_callback(lambda ended: self._threads.submit(undo, ended))
                raise
        except FileNotFoundError:
            raise
        except Exception as error:  # each package of fsspec has exceptions of its own
            raise StoreUnavailable(f"The files of jobs cannot be used: {type(error).__name__}: {error}") from error

    def _write(self, path: str, data: bytes | BinaryIO) -> None:
        if self._local is not None:
            self._local.put(path, data)
        elif isinstance(data, bytes):
            self._system.pipe_file(path, data)
        else:
            self._upload(path, data)

    def _discard(self, path: str) -> None:
        """Delete a file that is no longer needed, if it is there."""
        try:
            self._delete(path)
        except FileNotFoundError:
            return
        except Exception as error:  # nobody waits for this call, so only the log can say it
            logger.warning("%s was written, is not needed, and could not be deleted: %r", path, error)

    def _upload(self, path: str, data: BinaryIO) -> None:
        # A bucket would keep what an open file had got if reading failed half-way.
        with NamedTemporaryFile() as copy:
            shutil.copyfileobj(data, copy, REMOTE_PIECE_BYTES)
            copy.flush()
            self._system.put_file(copy.name, path)

    def _delete(self, path: str) -> None:
        if self._local is not None:
            self._local.delete(path)
        else:
            self._system.rm_file(path)

    def _delete_all(self, path: str) -> None:
        self._system.rm(path, recursive=True)


def _close_opened(opening: "Future[BinaryIO]") -> None:
    if opening.exception() is None:
        opening.result().close()


def missing_package(url: str) -> str | None:
    """Return what to install for the protocol of ``url``, or None if nothing is missing."""
    protocol = get_protocol(url)
    try:
        get_filesystem_class(protocol)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        return f"install `ryla-serve[{extra}]`" if extra else f"its package is missing: {error}"
    except ValueError as error:
        return str(error)
    return None


def _list(system: Any, root: str, path: str) -> list[tuple[str, float]]:
    found = system.find(path, detail=True)
    return [(name.removeprefix(root).strip("/"), _written(details)) for name, details in found.items()]


def _protocols(system: Any) -> tuple[str, ...]:
    return (system.protocol,) if isinstance(system.protocol, str) else tuple(system.protocol)


def _written(details: dict[str, Any]) -> float:
    """Return when a file was written, which each package names in another way."""
    for name in ("mtime", "LastModified", "last_modified", "updated", "created"):
        value = details.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
        if isinstance(value, str):
            return datetime.fromisoformat(value).timestamp()
    raise StoreUnavailable(f"The file system does not say when {details.get('name')} was written.")
