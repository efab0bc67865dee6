"""The folder of the embedded stores, which no other user of the machine may open."""

import os
import stat
from pathlib import Path

from serve.jobs.store.job_store import StoreUnavailable


def make_private(folder: Path) -> None:
    """Create ``folder``, or close an existing one to other users.

    Raises StoreUnavailable if it cannot be created, or if it, or a link in its place, belongs to
    another user, who could read and replace what is in it.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for status in (folder.lstat(), folder.stat()):
            if status.st_uid != os.geteuid():
                raise StoreUnavailable(
                    f"The folder {folder} belongs to another user. Name a folder of your own in `jobs.folder`."
                )
        if stat.S_IMODE(folder.stat().st_mode) != 0o700:
            folder.chmod(0o700)
    except OSError as error:
        raise StoreUnavailable(f"The folder {folder} cannot be used: {error.strerror or error}.") from error
