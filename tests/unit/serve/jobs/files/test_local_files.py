"""Files in a folder: whole or not at all, on the disk when they should be, and closed to others."""

import io
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from serve.jobs.files.fsspec_files import FsspecFiles
from serve.jobs.files.local_files import LEFT_S, LocalFiles


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of the files, which is not there yet."""
    return tmp_path / "films" / "files"


@pytest.fixture
def files(root: Path) -> LocalFiles:
    """An empty folder of files."""
    return LocalFiles(str(root), fsync=False)


def everything(root: Path) -> set[str]:
    """Return the names of all files and folders below ``root``."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


async def test_local_files_are_private_and_those_of_killed_processes_go(tmp_path: Path) -> None:
    files = FsspecFiles(str(tmp_path / "files"))
    await files.put("results/a/1", b"x")
    assert stat.S_IMODE((tmp_path / "files").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "files/results/a/1").stat().st_mode) == 0o600
    fresh, old = tmp_path / "files/results/a/.1.f.part", tmp_path / "files/results/a/.1.o.part"
    for part in (fresh, old):
        part.write_bytes(b"x")
    written = old.stat().st_mtime - LEFT_S - 1
    os.utime(old, (written, written))
    assert [key for key, _ in await files.list("results")] == ["results/a/1"]
    assert fresh.exists()
    assert not old.exists()
    files.close()


@pytest.mark.parametrize("data", [b"new", io.BytesIO(b"new")], ids=["bytes", "file"])
def test_a_file_takes_the_place_of_an_earlier_one_and_leaves_nothing_beside_it(
    files: LocalFiles, root: Path, data: Any
) -> None:
    place = root / "results/a/1"
    files.put(str(place), b"old and longer")
    reader = place.open("rb")
    files.put(str(place), data)
    assert place.read_bytes() == b"new"
    assert everything(root) == {"results", "results/a", "results/a/1"}
    with reader:  # who has opened the earlier file reads that to its end
        assert reader.read() == b"old and longer"


class StoppedFile(io.BytesIO):
    """A file whose reader is told to end, as a process is."""

    def read(self, size: int | None = -1, /) -> bytes:
        raise KeyboardInterrupt


def test_whatever_stops_the_writing_leaves_the_earlier_file_and_no_part_of_the_new_one(files: LocalFiles, root: Path) -> None:
    place = root / "results/a/1"
    files.put(str(place), b"old")
    with pytest.raises(KeyboardInterrupt):
        files.put(str(place), StoppedFile())
    assert place.read_bytes() == b"old"
    assert everything(root) == {"results", "results/a", "results/a/1"}


@pytest.mark.parametrize("fsync", [False, True])
def test_with_fsync_the_file_is_on_the_disk_before_its_name_and_its_name_before_the_call_ends(
    root: Path, monkeypatch: pytest.MonkeyPatch, fsync: bool
) -> None:
    place, synced = root / "results/1", []

    def note(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), os.fstat(descriptor).st_size, place.exists()))

    monkeypatch.setattr("serve.jobs.files.local_files.os.fsync", note)
    LocalFiles(str(root), fsync=fsync).put(str(place), b"content")
    if fsync:
        (file_is_folder, size, named), (is_folder, _, named_then) = synced
        assert (file_is_folder, size, named) == (False, 7, False)
        assert (is_folder, named_then) == (True, True)
    else:
        assert synced == []


def test_a_folder_that_a_deletion_removes_meanwhile_is_made_again(
    files: LocalFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[object] = []
    really_open = os.open

    def open_late(path: Any, *options: Any, **named: Any) -> int:
        if str(path).endswith(".part"):
            opened.append(path)
            if len(opened) == 1:
                shutil.rmtree(root)
        return really_open(path, *options, **named)

    monkeypatch.setattr("serve.jobs.files.local_files.os.open", open_late)
    files.put(str(root / "results/a/1"), b"x")
    assert len(opened) == 2
    assert (root / "results/a/1").read_bytes() == b"x"
    assert stat.S_IMODE(root.stat().st_mode) == 0o700


def test_the_last_file_of_a_job_goes_with_its_folder_and_the_root_stays(files: LocalFiles, root: Path) -> None:
    for key in ("results/a/1", "results/a/2"):
        files.put(str(root / key), b"x")
    files.delete(str(root / "results/a/1"))
    assert everything(root) == {"results", "results/a", "results/a/2"}
    files.delete(str(root / "results/a/2"))
    assert everything(root) == {"results"}
    (root / "results").rmdir()
    files.put(str(root / "top"), b"x")
    files.delete(str(root / "top"))
    assert root.is_dir()
    with pytest.raises(FileNotFoundError):
        files.delete(str(root / "top"))


def test_a_list_names_the_files_as_keys_and_passes_over_what_goes_meanwhile(
    files: LocalFiles, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key in ("results/a/1", "results/b/1"):
        files.put(str(root / key), b"x")
    os.utime(root / "results/b/1", (5, 7))
    really_stat = Path.stat

    def stat_late(path: Path, **options: Any) -> os.stat_result:
        if path == root / "results/a/1":
            path.unlink(missing_ok=True)
        return really_stat(path, **options)

    monkeypatch.setattr(Path, "stat", stat_late)
    assert files.list(str(root / "results")) == [("results/b/1", 7.0)]
    assert files.list(str(root / "nothing")) == []


def test_free_space_is_told_before_there_is_a_file(files: LocalFiles, root: Path) -> None:
    assert 0 < files.free_bytes() <= shutil.disk_usage(root).total
    assert stat.S_IMODE(root.stat().st_mode) == 0o700
