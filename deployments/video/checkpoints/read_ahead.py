"""Reads files into the page cache ahead of the loaders.

Loaders map files into memory and read them page by page, which takes a disk several times as long.
"""

import threading
from collections.abc import Iterable
from pathlib import Path

BLOCK_BYTES = 16 * 2**20


def read_ahead(paths: Iterable[Path]) -> None:
    """Start to read ``paths`` in order, in a daemon thread, and return at once."""
    threading.Thread(target=_read, args=([*paths],), name="read-ahead", daemon=True).start()


def _read(paths: list[Path]) -> None:
    block = bytearray(BLOCK_BYTES)
    for path in paths:
        try:
            with path.open("rb", buffering=0) as file:
                while file.readinto(block):
                    pass
        except OSError:
            return  # the loader meets the same error and reports it
