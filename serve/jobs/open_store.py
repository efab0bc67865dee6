"""The stores that the settings name."""

from pathlib import Path
from typing import Protocol

from serve.jobs.files import FileStore
from serve.jobs.fsspec_files import FsspecFiles
from serve.jobs.sqlite_store import SqliteStore
from serve.jobs.store import JobStore


class StoreSettings(Protocol):
    """Where jobs are kept."""

    @property
    def store(self) -> str:
        """`embedded`, or the URL of a Redis."""

    @property
    def folder(self) -> Path:
        """The folder of an embedded store."""

    @property
    def files(self) -> str | None:
        """The URL of the files for fsspec; None for a folder below ``folder``."""


def open_stores(settings: StoreSettings) -> tuple[JobStore, FileStore]:
    """Return the stores, which connect when they are opened or first used.

    Raises StoreUnavailable for files at a URL that fsspec cannot open.
    """
    folder = Path(settings.folder)
    files = FsspecFiles(settings.files or str(folder.absolute() / "files"))
    if settings.store == "embedded":
        return SqliteStore(folder / "jobs.sqlite3"), files
    from serve.jobs.redis_store import RedisStore  # imported where it is used: its client takes long

    return RedisStore(settings.store), files
