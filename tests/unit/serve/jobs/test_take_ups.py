"""Jobs that nobody works on, while no Runner has room for them."""

import asyncio

from serve.jobs.results.outcome import Outcome
from serve.jobs.take_ups import TakeUps
from tests.unit.serve.jobs.samples import new_job


async def test_a_job_is_asked_for_again_only_when_its_call_has_ended() -> None:
    asked: list[str] = []
    called, let_go = asyncio.Event(), asyncio.Event()

    async def wait_in_the_router(job_id: str, request: object, *, waiter: object, known_beat: int | None) -> Outcome | None:
        asked.append(job_id)
        called.set()
        await let_go.wait()
        let_go.clear()
        raise RuntimeError("the Runner is gone")

    take_ups, first, second = TakeUps(wait_in_the_router), new_job(), new_job()
    for _ in range(3):
        await take_ups.take_up(first)
        await called.wait()
    assert asked == [first.id]
    called.clear()
    await take_ups.take_up(second)
    await called.wait()
    assert asked == [first.id, second.id]
    let_go.set()
    while len(asked) == 2:
        await take_ups.take_up(first)
        await asyncio.sleep(0)
    assert asked[2] == first.id
