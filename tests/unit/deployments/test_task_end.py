"""A task that is cancelled again and again still waits for what must end first."""

import asyncio

import pytest

from deployments.task_end import wait_for_end


async def test_it_waits_for_the_end_however_often_it_is_cancelled() -> None:
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    waiting = asyncio.ensure_future(wait_for_end(work))
    for _ in range(3):
        await asyncio.sleep(0)
        waiting.cancel()
    await asyncio.sleep(0)
    assert not waiting.done()
    work.set_result(None)
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("error", [None, RuntimeError("the work failed")])
async def test_the_outcome_of_the_work_is_left_to_its_caller(error: Exception | None) -> None:
    work: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if error is None:
        work.set_result(None)
    else:
        work.set_exception(error)
    await wait_for_end(work)
    assert work.exception() is error
