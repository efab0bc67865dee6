"""What a store knows of how long the jobs of a queue take."""

import pytest

from serve.jobs.store.job_store import JobStore
from serve.jobs.store.record import State
from tests.unit.serve.jobs.samples import NOW, create, run


async def test_the_pace_of_a_queue_is_the_mean_of_its_latest_jobs_that_succeeded(store: JobStore) -> None:
    async def took(seconds: float, state: State = "succeeded", slot: str = "wan26") -> None:
        job = await create(store, slot=slot)
        started_at = (await run(store, job)).started_at or 0
        await store.finish(job.id, 1, state=state, at=started_at + seconds, expires_at=NOW + 10)

    assert (await store.queue("wan26")).pace_s is None
    for seconds in (1000, 1000, *[10] * 5, *[20] * 5):
        await took(seconds)
    await took(500, state="failed")
    await took(1, slot="image-swap")
    assert (await store.queue("wan26")).pace_s == pytest.approx(15)
    assert (await store.queue("image-swap")).pace_s == pytest.approx(1)
    assert (await store.queue("film-swap")).pace_s is None
