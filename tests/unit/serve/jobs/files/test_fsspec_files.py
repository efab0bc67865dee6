"""The files of jobs, in a folder and in fsspec's memory."""

import asyncio
import io
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.jobs.files.fsspec_files import FsspecFiles
from serve.jobs.store.job_store import StoreUnavailable


@pytest.fixture(params=["local", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FsspecFiles]:
    """An empty store of files."""
    url = f"file://{tmp_path}/files" if request.param == "local" else f"memory://{secrets.token_hex(4)}"
    files = FsspecFiles(url, **({"fsync": True} if request.param == "local" else {}))
    yield files
    files.close()


async def read(files: FsspecFiles, key: str, start: int, end: int) -> bytes:
    return b"".join([piece async for piece in files.read(key, start, end)])


@pytest.mark.parametrize("size", [0, 5, 9_000_000])
async def test_a_file_comes_back(files: FsspecFiles, size: int) -> None:
    content = os.urandom(size)
    await files.put("results/a/1", content)
    await files.put("results/a/2", io.BytesIO(content))
    for key in ("results/a/1", "results/a/2"):
        assert await files.get(key) == content
        assert await files.size(key) == size
        assert await read(files, key, 0, size) == content
        assert await read(files, key, 2, 4) == content[2:4]
    await files.put("results/a/1", b"new")
    assert await files.get("results/a/1") == b"new"


async def test_what_is_not_there(files: FsspecFiles) -> None:
    assert await files.get("results/a") is None
    assert await files.size("results/a") is None
    assert await files.list("results") == []
    await files.delete("results/a")
    await files.delete_all("results")
    with pytest.raises(FileNotFoundError):
        await read(files, "results/a", 0, 1)


async def test_files_are_listed_and_deleted(files: FsspecFiles) -> None:
    for key in ("results/a/1", "results/a/2", "results/ab/1", "requests/a"):
        await files.put(key, b"x")
    found = dict(await files.list("results"))
    assert set(found) == {"results/a/1", "results/a/2", "results/ab/1"}
    assert all(written > 1e9 for written in found.values())
    await files.delete("results/a/2")
    assert set(dict(await files.list("results/a"))) == {"results/a/1"}
    await files.delete_all("results/a")
    assert set(dict(await files.list("results"))) == {"results/ab/1"}
    assert await files.get("requests/a") == b"x"


class BrokenFile(io.BytesIO):
    """A file whose second half cannot be read."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError("The disk is broken.")
        return super().read(3)


async def test_a_file_that_is_not_whole_is_not_there(files: FsspecFiles) -> None:
    await files.put("results/a", b"old")
    for key in ("results/a", "results/b"):
        with pytest.raises(StoreUnavailable, match="broken"):
            await files.put(key, BrokenFile(b"new content"))
    assert await files.get("results/a") == b"old"
    assert [key for key, _ in await files.list("results")] == ["results/a"]


class HeldFile(io.BytesIO):
    """A file whose reading waits in its thread, as on a slow disk, once ``begun`` is set."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.begun = asyncio.Event()
        self.let_go = threading.Event()
        self._loop = asyncio.get_running_loop()

    def read(self, size: int | None = -1, /) -> bytes:
        self._loop.call_soon_threadsafe(self.begun.set)
        assert self.let_go.wait(60)
        return super().read(size)


async def test_a_call_that_is_cancelled_while_it_writes_leaves_no_file(
    files: FsspecFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on, and what it writes is deleted then."""
    loop, discarded, discard = asyncio.get_running_loop(), asyncio.Event(), files._discard

    def noted(path: str) -> None:
        assert files._system.exists(path)
        discard(path)
        loop.call_soon_threadsafe(discarded.set)

    monkeypatch.setattr(files, "_discard", noted)
    content = HeldFile(b"x" * 1000)
    call = asyncio.ensure_future(files.put("results/a/1", content))
    async with asyncio.timeout(60):
        await content.begun.wait()
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        content.let_go.set()
        await discarded.wait()
    assert await files.list("results") == []


@pytest.mark.parametrize("key", ["../a", "/a", "a/../b", "a//b", "", "a/", ".a", "a/.b", "a\n", "a\0"])
async def test_no_key_leaves_the_store(files: FsspecFiles, key: str) -> None:
    with pytest.raises(ValueError, match="not the key"):
        await files.put(key, b"x")


async def test_a_local_file_is_read_to_its_end_although_it_is_deleted(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path / "files"))
    await files.put("results/a", b"x" * 3_000_000)
    pieces = []
    async for piece in files.read("results/a", 0, 3_000_000):
        pieces.append(piece)
        await files.delete("results/a")
    assert len(pieces) > 1
    assert b"".join(pieces) == b"x" * 3_000_000
    files.close()


async def test_a_file_whose_name_is_no_key_is_not_listed(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path / "files"))
    await files.put("results/a/1", b"x")
    for name in (".nfs0000", "a b", ".DS_Store", "\N{SNOWMAN}"):
        (tmp_path / "files" / "results" / "a" / name).write_bytes(b"x")
    assert [key for key, _ in await files.list("results")] == ["results/a/1"]
    files.close()
