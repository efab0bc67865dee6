"""The boundary between callers' files and the libraries that read them.

A damaged file can make Pillow, PyAV or a codec raise almost anything: a ``KeyError`` of a plugin, a
``UnicodeDecodeError``, a ``MemoryError``. All of it is a fault of the file, so all of it becomes a
``MediaError``: here, where the library that reads the file is known, and for what nobody foresaw in
the worker process, which blames the file for any error while it reads one.
"""

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import av.error

from serve.media.errors import MediaError, MediaTooLarge

logger = logging.getLogger("ray.serve")

_EXPECTED = (av.error.FFmpegError, OSError, ValueError, SyntaxError, EOFError, LookupError, struct.error, zlib.error)
"""What the libraries raise for damaged files by design; anything else is logged with its trace."""
_MAX_WORD_CHARS = 160


@contextmanager
def reading(complaint: str, remedy: str) -> Iterator[None]:
    """Turn every exception of the block into a ``MediaError``.

    Lack of memory becomes a ``MediaTooLarge``. The message is ``complaint``, the
    library's own word in parentheses, and ``remedy``. A ``MediaError`` that the block raises itself
    is left alone.
    """
    try:
        yield
    except MediaError:
        raise
    except MemoryError:
        raise MediaTooLarge("the file needs more memory to decode than its header says; re-encode it") from None
    except Exception as error:
        if not isinstance(error, _EXPECTED):
            logger.warning("%s: %s", complaint, type(error).__name__, exc_info=error)
        raise MediaError(f"{complaint} ({_word(error)}); {remedy}") from None


def _word(error: Exception) -> str:
    """Return what a library says about a file, in printable characters."""
    text = str(getattr(error, "strerror", None) or error)
    if not text or not isinstance(error, _EXPECTED):
        text = f"{type(error).__name__}: {text}".removesuffix(": ")
    return "".join(c if c.isprintable() else "?" for c in text[:_MAX_WORD_CHARS])
