"""The stores that the settings name."""

from serve.job_settings import JobSettings
from serve.jobs.files import FileStore
from serve.jobs.fsspec_files import FsspecFiles
from serve.jobs.sqlite_store import SqliteStore
from serve.jobs.store import JobStore, StoreUnavailable


def open_stores(settings: JobSettings) -> tuple[JobStore, FileStore]:
    """Return the stores, which connect when they are opened or first used.

    Raises StoreUnavailable for files at a URL that fsspec cannot open, and for a file with the
    password of Redis that cannot be read.
    """
    files = FsspecFiles(settings.files_url)
    if settings.embedded:
        return SqliteStore(settings.local_folder / "jobs.sqlite3"), files
    from serve.jobs.redis_store import RedisStore  # imported where it is used: its client takes long

    return RedisStore(settings.store, password=_password(settings)), files


def _password(settings: JobSettings) -> str | None:
    if settings.store_password_file is None:
        return None
    try:
        return settings.store_password_file.read_text().strip()
    except OSError as error:
        raise StoreUnavailable(f"The password of the store of jobs cannot be read: {error}") from error
