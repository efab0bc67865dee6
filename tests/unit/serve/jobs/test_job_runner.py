"""The Runner over a fake graph and a real store; every wait is for an event, with a limit."""

import asyncio
import threading
import time
from typing import Any

import pytest
from ray.exceptions import ActorDiedError

from serve.jobs.results.outcome import Outcome
from serve.jobs.store.keys import FOLDERS, preview_key, request_key, result_key
from serve.media.spool import read_media
from serve.pipelines.requests import SwapImage
from tests.unit.serve.http.service import HeldVideoModel
from tests.unit.serve.jobs.bench import LIMIT_S, Bench, begun, within
from tests.unit.serve.jobs.job_builders import FACE, make_job, video
from tests.unit.serve.local_jobs import Line
from tests.unit.serve.loop_clock import LoopClock


async def test_a_job_runs_to_its_end_and_its_result_is_stored(bench: Bench) -> None:
    job = await bench.add(video())
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    ended = outcome.job
    assert (ended.state, ended.attempt) == ("succeeded", 1)
    assert ended == await bench.record(job)
    assert ended.result is not None
    assert ended.result.key == result_key(job.id, 1)
    data = await bench.files.get(ended.result.key)
    assert data is not None
    assert len(data) == ended.result.size
    assert data[4:8] == b"ftyp"
    assert ended.result.headers["X-Frames"] == "9"
    assert ended.result.headers["X-Seed"] == "7"
    assert await bench.files.get(request_key(job.id)) is None
    assert ended.owner == ""


async def test_the_events_tell_the_whole_story_in_order(bench: Bench) -> None:
    job = await bench.add(video())
    await within(bench.one.run(job.id))
    events = await bench.store.events(job.id, 0)
    assert [event.id for event in events] == list(range(1, len(events) + 1))
    assert events[0].job.state == "queued"
    assert events[-1].job.state == "succeeded"
    stages = list(dict.fromkeys(event.job.progress.stage for event in events))
    assert stages == ["queued", "starting", "denoising", "decoding", "writing"]
    percents = [event.job.progress.percent for event in events]
    assert percents == sorted(percents)
    denoising = [event.job.progress for event in events if event.job.progress.stage == "denoising"]
    assert [(step.step, step.steps) for step in denoising] == [(1, 2), (2, 2)]


async def test_a_refused_request_fails_with_the_callers_names(bench: Bench) -> None:
    job = await bench.add(SwapImage(source=FACE, face=[b"no picture"]))
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    assert outcome.job.state == "failed"
    problem = outcome.job.problem
    assert problem is not None
    assert (problem["status"], problem["errors"][0]["pointer"]) == (422, "#/reference_image")
    assert problem["request_id"] == "the-id"


async def test_a_fault_of_ours_is_a_500_without_its_text(bench: Bench) -> None:
    bench.graph.wan26.error = ValueError("/secret/path")
    outcome = await within(bench.one.run((await bench.add(video())).id))
    assert outcome is not None
    assert outcome.job.problem is not None
    assert outcome.job.problem["status"] == 500
    assert "secret" not in str(outcome.job.problem)


async def test_a_job_that_is_cancelled_before_its_request_is_read_is_no_fault(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a job ends at once, and its request is deleted."""
    job = await bench.add(video())
    size = bench.files.size

    async def cancelled_meanwhile(key: str) -> int | None:
        await bench.desk.cancel(job.id, "ada")
        return await size(key)

    monkeypatch.setattr(bench.files, "size", cancelled_meanwhile)
    await within(bench.one.run(job.id))
    assert (await bench.record(job)).state == "cancelled"
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_request_that_is_missing_is_a_fault_of_ours(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    job = await bench.add(video())
    await bench.files.delete(request_key(job.id))
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    assert (outcome.job.state, (outcome.job.problem or {})["status"]) == ("failed", 500)
    assert "is not in the file store" in caplog.text


@pytest.mark.slow
async def test_a_cancelled_job_stops_its_model(bench: Bench) -> None:
    job = await bench.add(video())
    call = await begun(bench, job)
    await bench.desk.cancel(job.id, "ada")
    outcome = await within(call)
    assert outcome is not None
    assert outcome.job.state == "cancelled"
    assert bench.graph.wan26.stopped  # type: ignore[attr-defined]
    assert await bench.files.list("results") == []
    assert await bench.files.list("requests") == []


@pytest.mark.slow
@pytest.mark.parametrize("end", ["cancelled", "left", "lost"])
async def test_a_result_that_is_being_written_as_its_job_ends_is_deleted(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """The thread that writes cannot be stopped, and the job does not wait for it."""
    monkeypatch.setattr("serve.jobs.execution.INLINE_BYTES", 0)  # so that every result is stored
    loop, let_go = asyncio.get_running_loop(), threading.Event()
    begun, written = asyncio.Event(), asyncio.Event()
    write = bench.files._write  # type: ignore[attr-defined]

    def held(path: str, data: Any) -> None:
        if "/results/" not in path:
            write(path, data)
            return
        loop.call_soon_threadsafe(begun.set)
        assert let_go.wait(60)
        write(path, b"the result")  # the caller has closed its file
        loop.call_soon_threadsafe(written.set)

    monkeypatch.setattr(bench.files, "_write", held)
    job, stored = make_job(video(), durable=end != "left")
    await bench.files.put(request_key(job.id), read_media(stored))
    await bench.store.create(job, max_queued=100)
    line = Line()
    call = asyncio.ensure_future(bench.one.run(job.id, None, waiter=line if end == "left" else None))  # type: ignore[arg-type]
    await within(begun.wait())
    if end == "cancelled":
        await bench.desk.cancel(job.id, "ada")
    elif end == "left":
        line.close()
    else:
        while await bench.store.take("another", job.id, known_beat=(await bench.record(job)).beat) is None:
            pass  # a beat has come in between
    outcome = await within(call)
    assert (outcome and outcome.job.state) == (None if end == "lost" else "cancelled")
    assert not written.is_set()
    let_go.set()
    await within(written.wait())
    async with asyncio.timeout(LIMIT_S):
        while await bench.files.list("results"):  # noqa: ASYNC110 -- the thread tells nobody that it has deleted it
            await asyncio.sleep(0.001)


async def test_a_job_that_is_cancelled_before_its_turn_leaves_no_file_of_an_earlier_attempt(bench: Bench) -> None:
    job = await bench.add(video())
    for number in (1, 2):
        assert await bench.store.take(f"somebody who died {number}", job.id, known_beat=(await bench.record(job)).beat)
        for key in (result_key(job.id, number), preview_key(job.id, number)):
            await bench.files.put(key, b"left")
    await bench.files.delete(preview_key(job.id, 2))  # one of an attempt that waits has none
    cancelled = await bench.desk.cancel(job.id, "ada")
    assert cancelled is not None
    assert cancelled.state == "cancelled"
    for folder in FOLDERS:
        assert await bench.files.list(folder) == []


async def test_a_second_runner_does_not_take_a_job_that_is_held(bench: Bench) -> None:
    job = await bench.add(video())
    call = await begun(bench, job)
    assert await within(bench.two.run(job.id)) is None
    bench.graph.wan26.let_go()  # type: ignore[attr-defined]
    outcome = await within(call)
    assert outcome is not None
    assert outcome.job.attempt == 1


@pytest.mark.slow
async def test_a_job_is_taken_from_an_owner_that_gave_no_sign_and_the_old_attempt_stops(bench: Bench) -> None:
    job = await bench.add(video())
    call = await begun(bench, job)
    model = bench.graph.wan26
    assert isinstance(model, HeldVideoModel)

    async def take() -> Outcome | None:
        while True:  # a beat may come in between
            outcome = await bench.two.run(job.id, known_beat=(await bench.record(job)).beat)
            if outcome is not None:
                return outcome

    model.begun.clear()
    second = asyncio.ensure_future(take())
    assert await within(call) is None  # the first attempt learns that it is not wanted
    await within(model.begun.wait())
    model.let_go()
    outcome = await within(second)
    assert outcome is not None
    assert (outcome.job.attempt, outcome.job.state) == (2, "succeeded")
    assert [key for key, _ in await bench.files.list("results")] == [result_key(job.id, 2)]


@pytest.mark.settings(max_attempts=1)
async def test_a_job_that_was_lost_too_often_fails(bench: Bench) -> None:
    job = await bench.add(video())
    await bench.store.take("somebody who died", job.id)
    await bench.store.start("somebody who died", slots={"wan26": 1}, max_running=1)
    lost = await bench.record(job)
    outcome = await within(bench.one.run(job.id, known_beat=lost.beat))
    assert outcome is not None
    assert outcome.job.problem is not None
    assert outcome.job.problem["status"] == 502
    assert bench.graph.wan26.requests == []


@pytest.mark.settings(max_attempts=1)
async def test_a_job_that_was_lost_while_it_waited_has_all_its_attempts_left(bench: Bench) -> None:
    job = await bench.add(video())
    for number in range(3):
        lost = await bench.store.take(f"somebody who died {number}", job.id, known_beat=(await bench.record(job)).beat)
        assert lost is not None
    outcome = await within(bench.one.run(job.id, known_beat=(await bench.record(job)).beat))
    assert outcome is not None
    assert (outcome.job.state, outcome.job.attempt, outcome.job.begun) == ("succeeded", 4, 1)


@pytest.mark.settings(max_attempts=1)
async def test_a_job_whose_runners_all_die_while_it_waits_ends_at_last(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.jobs.job_runner.LEASES_PER_ATTEMPT", 2)
    job = await bench.add(video())
    for number in range(2):
        await bench.store.take(f"somebody who died {number}", job.id, known_beat=(await bench.record(job)).beat)
    outcome = await within(bench.one.run(job.id, known_beat=(await bench.record(job)).beat))
    assert outcome is not None
    assert outcome.job.problem is not None
    assert outcome.job.problem["status"] == 502


@pytest.mark.settings(max_attempts=4)
async def test_an_accepted_job_begins_again_as_often_as_the_setting_says(bench: Bench) -> None:
    bench.graph.wan26.errors += [ActorDiedError()] * 3
    outcome = await within(bench.one.run((await bench.add(video())).id))
    assert outcome is not None
    assert outcome.job.result is not None
    assert outcome.job.result.headers["X-Attempts"] == "4"


async def test_a_lost_model_replica_is_one_more_try_within_the_attempt(bench: Bench) -> None:
    bench.graph.wan26.errors.append(ActorDiedError())
    outcome = await within(bench.one.run((await bench.add(video())).id))
    assert outcome is not None
    assert outcome.job.result is not None
    assert outcome.job.result.headers["X-Attempts"] == "2"
    assert outcome.job.attempt == 1
    assert len({request.seed for request in bench.graph.wan26.requests}) == 1


@pytest.mark.slow
async def test_a_job_ends_at_its_deadline(bench: Bench) -> None:
    clock, created_at = LoopClock(), time.time()
    job = await bench.add(video(), created_at=created_at, deadline_at=created_at + 1000.5)
    call = await begun(bench, job)
    clock.move(1000.5)
    outcome = await within(call)
    assert outcome is not None
    assert outcome.job.problem is not None
    assert outcome.job.problem["status"] == 504
    assert "its limit of 1000.5 s; ask for fewer frames or steps" in outcome.job.problem["detail"]


async def test_a_result_that_is_being_recorded_at_the_deadline_still_reaches_its_caller(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is stored, so the call must not end with less than the result."""
    clock = LoopClock()
    job, stored = make_job(video(), durable=False, deadline_at=time.time() + 1000)
    await bench.store.create(job, max_queued=100)
    finish = bench.store.finish

    async def answer_late(*args: Any, **kwargs: Any) -> Any:
        ended = await finish(*args, **kwargs)
        clock.move(1000)
        await asyncio.sleep(0.01)  # ends after the timer of the deadline
        return ended

    monkeypatch.setattr(bench.store, "finish", answer_late)
    # Without a limit of its own, whose timer would end with that of the deadline.
    outcome = await bench.one.run(job.id, read_media(stored), waiter=Line())  # type: ignore[arg-type]
    assert outcome is not None
    assert outcome.job.state == "succeeded"
    assert outcome.data is not None
    assert outcome.data[4:8] == b"ftyp"


@pytest.mark.settings(keep_s=500, keep_plain_s=200)
async def test_a_job_that_is_not_durable_leaves_nothing_but_its_record(bench: Bench) -> None:
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    outcome = await within(bench.one.run(job.id, read_media(stored), waiter=Line()))  # type: ignore[arg-type]
    assert outcome is not None
    assert outcome.data is not None
    assert outcome.data[4:8] == b"ftyp"
    assert outcome.job.result is not None
    assert outcome.job.result.key is None
    assert outcome.job.expires_at - (outcome.job.finished_at or 0) == pytest.approx(200)
    for folder in FOLDERS:
        assert await bench.files.list(folder) == []


async def test_a_job_that_is_not_durable_ends_when_its_caller_is_gone(bench: Bench) -> None:
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    model, line = bench.graph.wan26, Line()
    assert isinstance(model, HeldVideoModel)
    model.gate = asyncio.Event()
    call = asyncio.ensure_future(bench.one.run(job.id, read_media(stored), waiter=line))  # type: ignore[arg-type]
    await within(model.begun.wait())
    line.close()
    outcome = await within(call)
    assert outcome is not None
    assert outcome.job.state == "cancelled"
    assert model.stopped


async def test_a_job_that_is_not_durable_is_not_begun_again_without_its_caller(bench: Bench) -> None:
    job, _ = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    assert outcome.job.problem is not None
    assert outcome.job.problem["status"] == 502
    assert bench.graph.wan26.requests == []
