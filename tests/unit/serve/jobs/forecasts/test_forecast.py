"""Estimates of when a queue has room, from its pace and the work ahead."""

import time
from typing import Any

import pytest

from serve.jobs.forecasts.forecast import UNKNOWN_S, Forecast, start_in_s
from serve.jobs.store.job_store import JobStore, Queue, StoreUnavailable
from serve.jobs.store.record import Job, Progress
from serve.jobs.store.turns import Waiting
from tests.unit.serve.jobs.samples import new_job


@pytest.mark.parametrize(
    ("ahead", "places", "left", "seconds"),
    [
        (0, 1, [], 0),  # a place is free
        (0, 1, [40], 40),
        (1, 1, [40], 140),
        (2, 1, [40], 240),
        (0, 2, [40, 70], 40),
        (1, 2, [40, 70], 70),
        (2, 2, [40, 70], 140),  # the place that is free at 40, after a job of 100
        (3, 2, [40, 70], 170),
        (0, 4, [40, 70], 0),
        (0, 1, [10, 20, 30], 30),  # more run than there are places now
    ],
)
def test_a_job_starts_when_those_ahead_have_had_a_place(ahead: int, places: int, left: list[float], seconds: float) -> None:
    assert start_in_s(ahead, places=places, left=left, pace_s=100) == seconds


class Queues:
    """A store with these jobs, the running ones by slot and the callers of the waiting ones."""

    def __init__(self) -> None:
        self.pace_s: float | None = 100.0
        self.running: dict[str, list[Job]] = {}
        self.waiting: dict[str, str] = {}
        self.away = False

    def run(self, *, slot: str = "wan26", caller: str = "b", age_s: float = 0, **progress: Any) -> Job:
        """Add a job that has been running for a time."""
        # Jobs of /v1/videos have details, which are a dict.
        job = new_job(
            slot=slot,
            caller=caller,
            details={"model": "wan2.6"},
            state="running",
            started_at=time.time() - age_s,
            progress=Progress(**progress),
        )
        self.running.setdefault(slot, []).append(job)
        return job

    async def queue(self, slot: str) -> Queue:
        """Return the queue of a slot."""
        if self.away:
            raise StoreUnavailable("away")
        waiting = [
            Waiting(id=str(number), caller=caller, slot=slot, number=number, running=False)
            for number, caller in enumerate(self.waiting.get(slot, ""))
        ]
        return Queue(tuple(waiting), tuple(job.id for job in self.running.get(slot, [])), self.pace_s)

    async def get(self, job_id: str) -> Job | None:
        """Return a job."""
        return next((job for jobs in self.running.values() for job in jobs if job.id == job_id), None)


def over(queues: Queues, *, max_running: int = 2) -> Forecast:
    """Return the forecasts of a service with a place for a video and two for images."""
    store: JobStore = queues  # type: ignore[assignment]
    return Forecast(store, {"wan26": 1, "image-swap": 2, "films": 4}, max_running=max_running)


async def test_a_caller_has_room_when_the_first_of_its_jobs_starts() -> None:
    queues = Queues()
    queues.run(age_s=30)
    queues.waiting["wan26"] = "abba"
    assert await over(queues).until_start_s("a") == pytest.approx(70, abs=2)
    assert await over(queues).until_start_s("b") == pytest.approx(170, abs=2)


async def test_a_caller_who_has_as_many_jobs_running_as_it_may_waits_for_one_of_its_own() -> None:
    queues = Queues()
    for caller, eta_s in (("a", 600), ("a", 300), ("b", 5)):
        queues.run(slot="films", caller=caller, stage="swapping", eta_s=eta_s)
    queues.waiting["films"] = "ba"
    assert await over(queues).until_start_s("b") == 0
    assert await over(queues).until_start_s("a") == 300
    assert await over(queues, max_running=1).until_start_s("a") == 600
    assert await over(queues, max_running=3).until_start_s("a") == 5


async def test_the_soonest_of_all_queues_counts() -> None:
    queues = Queues()
    queues.run(age_s=0)
    queues.run(slot="image-swap", age_s=95)
    queues.run(slot="image-swap", age_s=20)
    queues.waiting = {"wan26": "a", "image-swap": "ba"}
    assert await over(queues).until_start_s("a") == pytest.approx(80, abs=2)


async def test_what_a_running_job_says_of_itself_counts_more_than_the_mean() -> None:
    queues = Queues()
    queues.run(age_s=30, stage="denoising", eta_s=7)
    queues.waiting["wan26"] = "ba"
    assert await over(queues).until_start_s("b") == 7
    assert await over(queues).until_start_s("a") == 107


async def test_without_a_measured_job_the_running_ones_tell_the_pace() -> None:
    queues = Queues()
    queues.pace_s = None
    queues.waiting["wan26"] = "ba"
    assert await over(queues).until_start_s("a") == UNKNOWN_S
    queues.run(age_s=30, stage="denoising", eta_s=20)
    assert await over(queues).until_start_s("a") == pytest.approx(70, abs=2)


async def test_a_job_that_takes_longer_than_the_mean_may_end_at_any_time() -> None:
    queues = Queues()
    queues.run(age_s=500)
    queues.waiting["wan26"] = "a"
    assert await over(queues).until_start_s("a") == 0


async def test_a_queue_of_a_model_has_room_when_another_of_its_jobs_ends() -> None:
    queues = Queues()
    mine = queues.run(age_s=99)
    assert await over(queues).until_end_s("wan26", besides=mine.id) == 100
    queues.run(age_s=60)
    queues.run(age_s=20)
    assert await over(queues).until_end_s("wan26", besides=mine.id) == pytest.approx(40, abs=2)


async def test_an_estimate_never_fails() -> None:
    queues = Queues()
    queues.away = True
    assert await over(queues).until_start_s("a") == UNKNOWN_S
    assert await over(queues).until_end_s("wan26", besides="") == UNKNOWN_S
