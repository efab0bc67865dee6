"""Reads files into the system's cache before they are wanted: a mapped file read page by page takes a disk several times as long."""

import threading
from collections.abc import Iterable
from pathlib import Path

BLOCK = 16 * 2**20


def read_ahead(paths: Iterable[Path]) -> None:
    """Begins to read ``paths`` in their order, in a thread that ends by itself. Whoever maps the files meanwhile finds them there."""
    threading.Thread(target=_read, args=([*paths],), name="read-ahead", daemon=True).start()


def _read(paths: list[Path]) -> None:
    block = bytearray(BLOCK)
    for path in paths:
        try:
            with path.open("rb", buffering=0) as file:
                while file.readinto(block):
                    pass
        except OSError:
            return  # the load meets the same error, and says so
