"""A file of the store as a copy on this disk."""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from serve.jobs.files.file_store import fetch_to_disk
from serve.jobs.files.fsspec_files import FsspecFiles
from serve.jobs.store.job_store import StoreUnavailable
from tests.unit.serve.jobs.fake_jobs import FakeFiles


@pytest.mark.parametrize("size", [0, 1, 2_500])
async def test_the_copy_has_the_bytes_of_the_file_in_their_order(size: int) -> None:
    content = os.urandom(size)
    files = FakeFiles(content={"results/a/1": content})  # it gives 1000 bytes at a time
    assert (await fetch_to_disk(files, "results/a/1", size)).read() == content


async def test_the_copy_outlives_the_file(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path / "files"))
    await files.put("results/a/1", b"content")
    copy = await fetch_to_disk(files, "results/a/1", 7)
    await files.delete("results/a/1")
    assert copy.read() == b"content"
    files.close()


async def test_a_file_that_is_not_there_has_no_copy() -> None:
    files = FsspecFiles(f"memory://{secrets.token_hex(4)}")
    with pytest.raises(FileNotFoundError):
        await fetch_to_disk(files, "results/a/1", 7)
    files.close()


class Files(FakeFiles):
    """Files of which only the first piece comes. ``closed`` says that the reading was ended."""

    closed = False

    async def read(self, key: str, start: int, end: int) -> AsyncGenerator[bytes, None]:
        try:
            yield b"the first piece"
            await self.stop()
        finally:
            self.closed = True

    async def stop(self) -> None:
        raise StoreUnavailable("no route to the bucket")


async def test_a_copy_that_fails_half_way_ends_its_reading() -> None:
    files = Files()
    with pytest.raises(StoreUnavailable):
        await fetch_to_disk(files, "results/a/1", 99)
    assert files.closed


async def test_a_cancelled_copy_ends_its_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    files, begun = Files(), asyncio.Event()

    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(files, "stop", wait)
    call = asyncio.ensure_future(fetch_to_disk(files, "results/a/1", 99))
    async with asyncio.timeout(60):
        await begun.wait()
        call.cancel()
        await asyncio.wait({call})
    assert call.cancelled()
    assert files.closed
