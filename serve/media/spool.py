"""Storage for media of any size: small files are bytes, large ones are unnamed files on disk.

An unnamed file takes no space once its last descriptor is closed, even if the process is killed.
"""

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt

PIECE_BYTES = 2**20
"""The size of the pieces in which a large file is read."""


def write_all(descriptor: int, data: bytes | memoryview) -> None:
    """Write the whole of ``data``, which is C-contiguous, at the position of the descriptor."""
    view = memoryview(data).cast("B")
    while view:  # a file without a buffer may take less than it is given
        view = view[os.write(descriptor, view) :]


class Spool:
    """An unnamed temporary file that is freed with its last reference, or when the process ends.

    It owns its ``descriptor``. The file object does not: in a circle of references, Python may
    collect that one first, and would warn of a file that nobody has closed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._file = cast(BinaryIO, open(descriptor, "r+b", buffering=0, closefd=False))  # noqa: SIM115

    def close(self) -> None:
        """Free the file at once, even if readers still refer to it."""
        self._file.close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close

    @classmethod
    def empty(cls) -> "Spool":
        """Create an empty file in the system's temporary folder (``TMPDIR``)."""
        with tempfile.TemporaryFile(buffering=0) as file:
            return cls(os.dup(file.fileno()))

    @property
    def file(self) -> BinaryIO:
        """The unbuffered file object to write to."""
        return self._file

    def append(self, pixels: npt.NDArray[np.uint8]) -> None:
        """Write the bytes of an array behind those that were written before."""
        write_all(self._file.fileno(), np.ascontiguousarray(pixels).data)

    def write(self, data: bytes) -> None:
        """Write ``data`` behind what was written before."""
        write_all(self._file.fileno(), data)

    @property
    def size(self) -> int:
        """The size in bytes."""
        return os.fstat(self._file.fileno()).st_size

    def open(self) -> BinaryIO:
        """Return a reader with its own position, which starts at 0."""
        return io.BufferedReader(_Reader(self))

    def read(self) -> bytes:
        """Return the whole content."""
        with self.open() as file:
            return file.read()


Media: TypeAlias = bytes | Spool


def open_media(media: Media) -> BinaryIO:
    """Return a reader with its own position, which starts at 0."""
    return io.BytesIO(media) if isinstance(media, bytes) else media.open()


def read_media(media: Media) -> bytes:
    """Return the whole content as bytes."""
    return media if isinstance(media, bytes) else media.read()


def media_size(media: Media) -> int:
    """Return the size in bytes."""
    return media.size if isinstance(media, Spool) else len(media)


def media_pieces(media: Media) -> Iterator[bytes]:
    """Yield the content in pieces of ``PIECE_BYTES``; the last one may be shorter."""
    with open_media(media) as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


@contextmanager
def descriptor_of(media: Media) -> Iterator[int]:
    """Yield a descriptor of a file with the content, which another process can read.

    Its position is shared and has no meaning: readers keep positions of their own, as those of
    ``Spool`` do.
    """
    if isinstance(media, Spool):
        yield media.file.fileno()
        return
    with open(os.memfd_create("media"), "wb", buffering=0) as file:
        write_all(file.fileno(), media)
        yield file.fileno()


class _Reader(io.RawIOBase):
    """Reads at its own position, so that several readers and a writer can share the descriptor."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool  # this reference keeps the file open
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origins = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._spool.size}
        self._position = origins[whence] + offset
        return self._position

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        count = os.preadv(self._spool.file.fileno(), [view], self._position)
        self._position += count
        return count
