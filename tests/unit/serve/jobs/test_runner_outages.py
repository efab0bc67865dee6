"""The Runner while its stores are away, or answer nothing."""

import asyncio
from typing import Any

import pytest

from serve.jobs.results.outcome import Outcome
from serve.jobs.store.job_store import OutcomeUnknown, StoreUnavailable
from serve.jobs.store.keys import FOLDERS, preview_key, result_key
from serve.jobs.store.record import Job, Lease
from serve.media.spool import read_media
from tests.unit.serve.http.service import HeldVideoModel
from tests.unit.serve.jobs.bench import Bench, begun, within
from tests.unit.serve.jobs.job_builders import make_job, video
from tests.unit.serve.local_jobs import Line


async def test_the_end_of_a_job_waits_for_a_store_that_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    finish, away = bench.store.finish, [True, True]

    async def broken(*args: Any, **fields: Any) -> Job | None:
        if away:
            away.pop()
            raise StoreUnavailable("away")
        return await finish(*args, **fields)

    monkeypatch.setattr(bench.store, "finish", broken)
    monkeypatch.setattr("serve.jobs.forecasts.patience.RETRY_S", 0.01)
    outcome = await within(bench.one.run((await bench.add(video())).id))
    assert outcome is not None
    assert outcome.job.state == "succeeded"
    assert not away


def away_for(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, times: int, *, done: bool = False) -> list[str]:
    """Have a method of a store fail a number of times, done or not; return its calls.

    The calls are listed by their first argument.
    """
    monkeypatch.setattr("serve.jobs.forecasts.patience.RETRY_S", 0.01)
    method, calls = getattr(owner, name), list[str]()

    async def broken(first: str, *args: Any, **fields: Any) -> Any:
        calls.append(first)
        if len(calls) > times:
            return await method(first, *args, **fields)
        if done:
            await method(first, *args, **fields)
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(owner, name, broken)
    return calls


async def test_an_end_whose_answer_was_lost_is_not_taken_for_that_of_another_attempt(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = away_for(monkeypatch, bench.store, "finish", 1, done=True)
    outcome = await within(bench.one.run((await bench.add(video())).id))
    assert len(calls) == 2
    assert outcome is not None
    assert outcome.job.result is not None
    assert await bench.files.get(result_key(outcome.job.id, 1)) is not None


async def test_no_step_is_lost_while_the_store_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = away_for(monkeypatch, bench.store, "progress", 3)
    job = await bench.add(video())
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    assert outcome.job.state == "succeeded"
    assert len(calls) > 3
    steps = [event.job.progress for event in await bench.store.events(job.id, 0)]
    assert [step.step for step in steps if step.stage == "denoising"] == [1, 2]
    assert [step.percent for step in steps] == sorted(step.percent for step in steps)


@pytest.mark.parametrize("name", ["size", "put"], ids=["the request", "the result"])
async def test_a_job_waits_for_files_that_cannot_be_used(bench: Bench, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    job = await bench.add(video())
    calls = away_for(monkeypatch, bench.files, name, 2)
    outcome = await within(bench.one.run(job.id))
    assert len(calls) > 2
    assert outcome is not None
    assert (outcome.job.state, outcome.job.attempt) == ("succeeded", 1)


async def test_a_job_fails_with_a_reason_if_its_files_stay_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.jobs.forecasts.patience.PATIENCE_S", 0)
    job = await bench.add(video())
    away_for(monkeypatch, bench.files, "put", 1000)
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    assert outcome.job.problem is not None
    assert (outcome.job.problem["status"], outcome.job.problem["retry_after_s"]) == (503, 30)
    assert "files of jobs" in outcome.job.problem["detail"]


@pytest.mark.slow
async def test_a_job_that_is_ending_is_not_taken_for_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record has no owner any more, as if somebody else had taken the job."""
    delete, beat, beaten = bench.files.delete, bench.store.beat, asyncio.Event()
    finished = asyncio.Event()

    async def slow(key: str) -> None:
        finished.set()
        await beaten.wait()
        await delete(key)

    async def watched(owner: str, attempts: dict[str, int]) -> dict[str, Lease]:
        after = finished.is_set()
        held = await beat(owner, attempts)
        if after and owner == "one":
            beaten.set()
        return held

    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    monkeypatch.setattr(bench.files, "delete", slow)
    monkeypatch.setattr(bench.store, "beat", watched)
    outcome = await within(bench.one.run(job.id, read_media(stored), waiter=Line()))  # type: ignore[arg-type]
    assert outcome is not None
    assert outcome.data is not None


async def test_files_of_earlier_attempts_go_with_the_end(bench: Bench) -> None:
    job = await bench.add(video())
    await bench.store.take("somebody who died", job.id)
    for key in (result_key(job.id, 1), preview_key(job.id, 1)):
        await bench.files.put(key, b"left")
    outcome = await within(bench.one.run(job.id, known_beat=(await bench.record(job)).beat))
    assert outcome is not None
    left = [key for folder in FOLDERS for key, _ in await bench.files.list(folder)]
    assert left == [result_key(job.id, 2)]


async def test_a_job_has_ended_even_if_its_files_cannot_be_deleted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await bench.add(video())
    away_for(monkeypatch, bench.files, "delete", 1000)
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    assert outcome.job.state == "succeeded"


async def taken_again(bench: Bench, job: Job) -> "asyncio.Future[Outcome | None]":
    """Let the first Runner take a job that it has, as if it were lost, and return its call."""
    while True:
        call = asyncio.ensure_future(bench.one.run(job.id, known_beat=(await bench.record(job)).beat))
        while not call.done():
            if (await bench.record(job)).attempt == 2:
                return call
        assert await call is None  # a beat has come in between


async def test_a_runner_that_takes_up_its_own_job_stops_what_it_did_before(bench: Bench) -> None:
    """It finds a job of its own lost after a time in which the store has taken no beats."""
    model = bench.graph.wan26
    assert isinstance(model, HeldVideoModel)
    job = await bench.add(video())
    first = await begun(bench, job)
    second = await taken_again(bench, job)
    assert await within(first) is None
    assert model.stopped, "the model works for the first attempt still"
    beat = (await bench.record(job)).beat
    async with asyncio.timeout(60):
        while (await bench.record(job)).beat == beat:  # noqa: ASYNC110 -- the store tells nobody
            await asyncio.sleep(0.01)
    model.let_go()
    outcome = await within(second)
    assert outcome is not None
    assert (outcome.job.state, outcome.job.attempt) == ("succeeded", 2)
    left = [key for folder in FOLDERS for key, _ in await bench.files.list(folder)]
    assert left == [result_key(job.id, 2)]


async def test_an_attempt_that_ends_after_another_has_taken_its_place_leaves_no_file(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, finish = await bench.add(video()), bench.store.finish

    async def too_late(job_id: str, attempt: int, **fields: Any) -> Job | None:
        await bench.files.put(preview_key(job_id, attempt), b"the last frame")
        while await bench.store.take("another", job_id, known_beat=(await bench.record(job)).beat) is None:
            pass  # a beat has come in between
        assert await finish(job_id, attempt + 1, **fields)
        return await finish(job_id, attempt, **fields)

    monkeypatch.setattr(bench.store, "finish", too_late)
    assert await within(bench.one.run(job.id)) is None
    for folder in ("previews", "results"):
        assert await bench.files.list(folder) == []
