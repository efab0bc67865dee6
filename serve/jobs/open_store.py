"""The stores that the settings name, apart for each application."""

from urllib.parse import quote

from serve.job_settings import JobSettings
from serve.jobs.files.file_store import FileStore
from serve.jobs.files.fsspec_files import FsspecFiles
from serve.jobs.store.job_store import JobStore, StoreUnavailable
from serve.jobs.store.sqlite_store import SqliteStore


def open_stores(settings: JobSettings, application: str) -> tuple[JobStore, FileStore]:
    """Return the stores of an application, which connect when they are opened or first used.

    Applications that share a folder, a Redis or a bucket do not see each other's jobs: all that an
    application keeps is below its name. Raises StoreUnavailable for files at a URL that fsspec
    cannot open, and for a file with the password of Redis that cannot be read.
    """
    place = _place_of(application)
    folder = settings.local_folder.absolute() / place
    files = FsspecFiles(str(folder / "files") if settings.files is None else f"{settings.files.rstrip('/')}/{place}")
    if settings.embedded:
        return SqliteStore(folder / "jobs.sqlite3"), files
    from serve.jobs.store.redis_store import RedisStore  # imported where it is used: its client takes long

    return RedisStore(settings.store, password=_password(settings), prefix=f"ryla:{place}:"), files


def _place_of(application: str) -> str:
    """Return the name of an application as one part of a path, different for each."""
    return quote(application, safe="").replace(".", "%2E") or "%"


def _password(settings: JobSettings) -> str | None:
    if settings.store_password_file is None:
        return None
    try:
        return settings.store_password_file.read_text().strip()
    except OSError as error:
        raise StoreUnavailable(f"The password of the store of jobs cannot be read: {error}") from error
