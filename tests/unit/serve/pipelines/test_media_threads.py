"""Media code in threads: the event loop stays free, and a fault of a file names its field."""

import asyncio
import threading

import pytest

from deployments.errors import RequestRefused
from serve.media.errors import MediaError, MediaTooLarge
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
