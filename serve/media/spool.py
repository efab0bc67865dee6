"""Media that may be large: small ones are bytes, the others files on disk that have no name, and so leave nothing behind."""

import io
import os
import tempfile
from typing import BinaryIO, TypeAlias, cast


class Spool:
    """A file that is gone when nobody holds it any more, or when the process ends, however it does."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def close(self) -> None:
        """Gives up the file, whoever still holds this."""
        self._file.close()

    __del__ = close

    @classmethod
    def empty(cls) -> "Spool":
        """A new one, in the system's folder for temporary files (``TMPDIR``)."""
        return cls(cast(BinaryIO, tempfile.TemporaryFile(buffering=0)))

    @property
    def file(self) -> BinaryIO:
        """What writes to it."""
        return self._file

    @property
    def size(self) -> int:
        """Bytes."""
        return os.fstat(self._file.fileno()).st_size

    def open(self) -> BinaryIO:
        """A reader with a position of its own."""
        return io.BufferedReader(_Reader(self))

    def read(self) -> bytes:
        """All of it."""
        with self.open() as file:
            return file.read()


Media: TypeAlias = bytes | Spool


def open_media(media: Media) -> BinaryIO:
    """A reader with a position of its own."""
    return io.BytesIO(media) if isinstance(media, bytes) else media.open()


def read_media(media: Media) -> bytes:
    """All of it."""
    return media if isinstance(media, bytes) else media.read()


class _Reader(io.RawIOBase):
    """Reads a file that others read and write at the same time: the descriptor's own position is not used."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool  # which keeps the file open
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._spool.size}[whence]
        self._position = base + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        count = os.preadv(self._spool.file.fileno(), [memoryview(buffer)], self._position)  # type: ignore[arg-type]
        self._position += count
        return count
