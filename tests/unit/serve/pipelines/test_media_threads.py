"""Media code in threads: the event loop stays free, and a fault of a file names its field."""

import asyncio
import threading

import numpy as np
import pytest

from deployments.errors import RequestRefused
from serve.media.errors import MediaError, MediaTooLarge
from serve.media.images import encode_image
from serve.pipelines.errors import MediaOverLimit
from serve.pipelines.media_threads import MediaThreads


def fail(error: Exception) -> None:
    raise error


async def test_the_event_loop_runs_while_a_thread_works() -> None:
    release = threading.Event()

    def work(first: int, *, second: int) -> tuple[int, str]:
        assert release.wait(5)
        return first + second, threading.current_thread().name

    call = asyncio.ensure_future(MediaThreads(1).run(work, 1, second=2))
    await asyncio.sleep(0)
    release.set()
    total, thread = await call
    assert total == 3
    assert thread.startswith("media")


async def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    threads, barrier = MediaThreads(3), threading.Barrier(3)
    numbers = await asyncio.gather(*(threads.run(barrier.wait, 5) for _ in range(3)))
    assert sorted(numbers) == [0, 1, 2]


async def test_a_fault_of_the_file_names_the_field() -> None:
    threads = MediaThreads(1)
    with pytest.raises(RequestRefused) as refused:
        await threads.check("image", fail, MediaError("the file is damaged"))
    assert type(refused.value) is RequestRefused
    assert (refused.value.field, refused.value.detail) == ("image", "the file is damaged")
    with pytest.raises(MediaOverLimit) as over:
        await threads.check("source", fail, MediaTooLarge("too many pixels"))
    assert (over.value.field, over.value.detail) == ("source", "too many pixels")


async def test_a_fault_of_the_code_is_not_blamed_on_the_file() -> None:
    with pytest.raises(ZeroDivisionError):
        await MediaThreads(1).check("image", fail, ZeroDivisionError())


async def test_an_image_is_decoded_within_its_limit() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    file = encode_image(pixels, "image/png")
    threads = MediaThreads(1)
    np.testing.assert_array_equal(await threads.decode_image("image", file, 24), pixels)
    with pytest.raises(MediaOverLimit) as over:
        await threads.decode_image("image", file, 23)
    assert over.value.field == "image"
    assert "6 x 4" in over.value.detail
