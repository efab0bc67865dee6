"""Files in a folder of this machine, whole or not at all, and closed to other users."""

import os
import secrets
import shutil
import time
from pathlib import Path
from typing import BinaryIO

from serve.jobs.store.private_folder import make_private

LEFT_S = 3600
"""After this time, a file that is not whole was left by a process that is gone."""
_SUFFIX = ".part"


class LocalFiles:
    """What fsspec's local files lack. All calls block."""

    def __init__(self, root: str, *, fsync: bool) -> None:
        self._root = Path(root)
        self._fsync = fsync

    def put(self, path: str, data: bytes | BinaryIO) -> None:
        """Write a file beside its place, then move it there."""
        place = Path(path)
        part = place.with_name(f".{place.name}.{secrets.token_hex(8)}{_SUFFIX}")
        try:
            with os.fdopen(self._create(part), "wb") as file:
                if isinstance(data, bytes):
                    file.write(data)
                else:
                    shutil.copyfileobj(data, file, 1 << 20)
                if self._fsync:
                    file.flush()
                    os.fsync(file.fileno())
            part.replace(place)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        if self._fsync:
            folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def free_bytes(self) -> int:
        """Return how many bytes are free on the disk of the folder."""
        make_private(self._root)
        return shutil.disk_usage(self._root).free

    def delete(self, path: str) -> None:
        """Delete a file, and its folder if that is empty now. Raises FileNotFoundError."""
        place = Path(path)
        place.unlink()
        try:
            if place.parent != self._root:
                place.parent.rmdir()
        except OSError:  # others are in it, or others have deleted it
            return

    def list(self, path: str) -> list[tuple[str, float]]:
        """Return the keys of the files in a folder and when they were written.

        Delete what processes have left that ended while they wrote.
        """
        found: list[tuple[str, float]] = []
        for folder, _, names in os.walk(path):
            for name in names:
                place = Path(folder, name)
                try:
                    written = place.stat().st_mtime
                    if not name.endswith(_SUFFIX):
                        found.append((place.relative_to(self._root).as_posix(), written))
                    elif time.time() - written > LEFT_S:
                        place.unlink()
                except FileNotFoundError:
                    continue  # deleted meanwhile
        return found

    def _create(self, part: Path) -> int:
        while True:
            make_private(self._root)
            part.parent.mkdir(parents=True, exist_ok=True)
            try:
                return os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # a deletion has just removed the empty folder
