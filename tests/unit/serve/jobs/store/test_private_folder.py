"""The folder of the embedded stores, which is closed to other users or refused."""

import os
import stat
from pathlib import Path

import pytest

from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.store.private_folder import make_private
from serve.jobs.store.sqlite_store import SqliteStore


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a store."""
    return tmp_path / "jobs" / "jobs.sqlite3"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_folder_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.parent.mkdir()
    another = os.geteuid() + 1
    monkeypatch.setattr("serve.jobs.store.private_folder.os.geteuid", lambda: another)
    store = SqliteStore(path)
    with pytest.raises(StoreUnavailable, match="belongs to another user"):
        await store.open()
    await store.close()
    assert os.listdir(path.parent) == []


def test_a_new_folder_is_closed_to_others_whatever_the_umask_allows(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        make_private(tmp_path / "films" / "jobs")
    finally:
        os.umask(before)
    assert mode_of(tmp_path / "films" / "jobs") == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o777, 0o750, 0o500])
def test_a_folder_that_is_there_is_closed_and_keeps_its_files(tmp_path: Path, mode: int) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "jobs.sqlite3").write_text("jobs")
    folder.chmod(mode)
    make_private(folder)
    make_private(folder)
    assert mode_of(folder) == 0o700
    assert (folder / "jobs.sqlite3").read_text() == "jobs"


def test_a_link_to_a_folder_of_ours_stands_for_that_folder(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir(mode=0o755)
    (tmp_path / "jobs").symlink_to("disk")
    make_private(tmp_path / "jobs")
    assert (tmp_path / "jobs").is_symlink()
    assert mode_of(tmp_path / "disk") == 0o700


@pytest.mark.parametrize("theirs", ["link", "folder"])
def test_a_link_is_refused_if_it_or_its_folder_is_of_another_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, theirs: str
) -> None:
    """Who owns the link could let it point elsewhere, and who owns the folder could read it."""
    folder, link = tmp_path / "disk", tmp_path / "jobs"
    folder.mkdir(mode=0o755)
    link.symlink_to("disk")
    really_stat = os.stat

    def stat_of(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        found = really_stat(path, follow_symlinks=follow_symlinks)
        if follow_symlinks == (theirs == "folder"):
            found = os.stat_result([*found[:4], os.geteuid() + 1, *found[5:]])
        return found

    monkeypatch.setattr(Path, "stat", stat_of)
    monkeypatch.setattr(Path, "lstat", lambda path: stat_of(path, follow_symlinks=False))
    with pytest.raises(StoreUnavailable, match=r"belongs to another user\. Name a folder of your own in `jobs\.folder`\."):
        make_private(link)
    assert stat.S_IMODE(really_stat(folder).st_mode) == 0o755


@pytest.mark.parametrize("name", ["file", "file/jobs", "dangling"])
def test_what_is_no_folder_is_told_with_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(StoreUnavailable, match=f"The folder {tmp_path}/{name} cannot be used: [A-Z].*[.]"):
        make_private(tmp_path / name)
    assert (tmp_path / "file").read_text() == "x"
