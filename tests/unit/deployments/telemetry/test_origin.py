"""Each piece of work has the origin that it was begun for, in whatever thread or task it runs."""

import asyncio
import contextvars
import pickle
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor

import pytest

from deployments.telemetry.origin import NOWHERE, Origin, current_origin, work_for, working_for

FIRST, SECOND = Origin("first", "job"), Origin("second", trace="00-1-2-01")


def test_work_of_which_nothing_is_known_comes_from_nowhere() -> None:
    assert contextvars.Context().run(current_origin) is NOWHERE
    assert Origin("", "", "") == NOWHERE


def test_a_block_ends_with_the_origin_that_was_before_it_even_if_it_fails() -> None:
    before = current_origin()
    with working_for(FIRST):
        with working_for(SECOND):
            assert current_origin() is SECOND
        assert current_origin() is FIRST
        with pytest.raises(KeyError), working_for(SECOND):
            raise KeyError
        assert current_origin() is FIRST
    assert current_origin() is before


async def test_tasks_keep_the_origin_in_which_they_were_made_and_do_not_change_others() -> None:
    async def work(origin: Origin | None) -> list[Origin]:
        seen = [current_origin()]
        if origin is not None:
            work_for(origin)
        await asyncio.sleep(0)
        return [*seen, current_origin()]

    with working_for(FIRST):
        tasks = [asyncio.ensure_future(work(origin)) for origin in (None, SECOND, None)]
    assert await asyncio.gather(*tasks) == [[FIRST, FIRST], [FIRST, SECOND], [FIRST, FIRST]]
    assert current_origin() is NOWHERE


async def test_a_thread_has_it_only_if_it_runs_in_the_context() -> None:
    with working_for(FIRST), ThreadPoolExecutor(1) as pool:
        assert await asyncio.to_thread(current_origin) is FIRST
        assert pool.submit(current_origin).result() is NOWHERE


async def test_a_generator_that_is_closed_in_another_context_can_work_for_an_origin() -> None:
    async def generate() -> AsyncGenerator[Origin, None]:
        work_for(FIRST)
        try:
            yield current_origin()
        finally:
            closed.append(current_origin())

    closed: list[Origin] = []
    events = generate()
    begun = asyncio.create_task(anext(events), context=contextvars.Context())
    assert await begun is FIRST
    await asyncio.create_task(events.aclose(), context=contextvars.Context())
    assert closed == [NOWHERE], "`working_for` would have raised ValueError here"
    assert current_origin() is NOWHERE


def test_an_origin_crosses_to_other_replicas_as_it_is() -> None:
    assert pickle.loads(pickle.dumps(SECOND)) == SECOND
    with pytest.raises(AttributeError):
        SECOND.job_id = "another"  # type: ignore[misc]
