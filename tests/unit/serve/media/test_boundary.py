"""Whatever a library raises for a caller's file is a fault of the file."""

import asyncio
import struct
import zlib

import av.error
import pytest

from serve.media.boundary import reading
from serve.media.errors import MediaError, MediaTooLarge


@pytest.mark.parametrize(
    "error",
    [
        OSError("broken data stream"),
        SyntaxError("broken PNG file"),
        ValueError("bad value"),
        EOFError("no more frames"),
        KeyError("tile"),
        IndexError("list index out of range"),
        struct.error("unpack requires 4 bytes"),
        zlib.error("incorrect header check"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        av.error.InvalidDataError(1094995529, "Invalid data found"),
        OverflowError("int too large"),
        ZeroDivisionError("division by zero"),
        AttributeError("'NoneType' object has no attribute 'tell'"),
        RecursionError("maximum recursion depth exceeded"),
        AssertionError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_error_becomes_a_media_error_with_the_librarys_word(error: Exception) -> None:
    pattern = r"^the image is damaged \(.+\); send it again$"
    with pytest.raises(MediaError, match=pattern) as caught, reading("the image is damaged", "send it again"):
        raise error
    assert not isinstance(caught.value, MediaTooLarge)
    word = str(getattr(error, "strerror", None) or error)
    assert word in str(caught.value)


def test_an_unusual_error_is_logged_with_its_trace(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(MediaError, match="OverflowError: too large"), reading("the image is damaged", "send it again"):
        raise OverflowError("too large")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], OverflowError)


def test_a_lack_of_memory_is_a_file_that_is_too_large() -> None:
    with pytest.raises(MediaTooLarge, match="needs more memory"), reading("the image is damaged", "send it again"):
        raise MemoryError


def test_a_media_error_and_what_is_no_fault_pass_unchanged() -> None:
    for error in (MediaTooLarge("too long"), asyncio.CancelledError(), KeyboardInterrupt()):
        with pytest.raises(type(error)) as caught, reading("the image is damaged", "send it again"):
            raise error
        assert caught.value is error


def test_the_word_is_short_and_printable() -> None:
    with pytest.raises(MediaError) as caught, reading("the image is damaged", "send it again"):
        raise OSError("line\nbreak\x1b[31m" + "x" * 10_000)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
