"""The Runner over a fake graph and a real store; every wait is for an event, with a limit."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable
from dataclasses import replace
from typing import Any, TypeVar

import pytest
from ray.exceptions import ActorDiedError
from ray.serve.exceptions import BackPressureError

from serve.config import AppConfig
from serve.jobs.keys import FOLDERS, preview_key, request_key, result_key
from serve.jobs.outcome import Outcome
from serve.jobs.record import Job, Progress
from serve.jobs.store import OutcomeUnknown, StoreUnavailable
from serve.media.spool import read_media
from serve.pipelines.requests import SwapImage
from tests.unit.serve.fake_graph import FakeGraph
from tests.unit.serve.http.service import HeldVideoModel, make_config
from tests.unit.serve.jobs.job_builders import FACE, make_job, video
from tests.unit.serve.local_jobs import Line, LocalDesk, running_loops

T = TypeVar("T")
LIMIT_S = 60


async def within(work: Awaitable[T]) -> T:
    """Return the result of ``work``, which must come in a time that only a fault exceeds."""
    return await asyncio.wait_for(work, LIMIT_S)


class Bench:
    """Two Runner replicas, ``one`` and ``two``, over one store and one graph."""

    def __init__(self, graph: FakeGraph, config: AppConfig) -> None:
        self.graph = graph
        self.desk = LocalDesk(config, graph)
        self.store, self.files = self.desk.store, self.desk.files
        self.one = self.desk.runner.new("one")
        self.two = self.desk.runner.new("two")

    async def add(self, request: Any, **fields: Any) -> Job:
        """Store a durable job with its request."""
        job, stored = make_job(request, **fields)
        await self.files.put(request_key(job.id), read_media(stored))
        return await self.store.create(job, max_queued=100)

    async def record(self, job: Job) -> Job:
        """Return the record of a job as it is now."""
        current = await self.store.get(job.id)
        assert current is not None
        return current


@pytest.fixture
def held() -> HeldVideoModel:
    """A video model that stops between denoising and decoding until it is let go."""
    return HeldVideoModel()


@pytest.fixture
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A bench over a fake graph; a test may give settings of jobs by ``settings``."""
    marker = request.node.get_closest_marker("settings")
    graph = FakeGraph(wan26=HeldVideoModel(gate=None))
    bench = Bench(graph, make_config(jobs=dict(marker.kwargs) if marker else {}))
    await bench.desk.open()
    async with running_loops(bench.one), running_loops(bench.two):
        yield bench
    await bench.desk.close()


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


async def begun(bench: Bench, job: Job, runner: Any = None) -> "asyncio.Future[Outcome | None]":
    """Start a job on a held model, and return its call once the model has begun."""
    model = bench.graph.wan26
    assert isinstance(model, HeldVideoModel)
    model.gate = asyncio.Event()
    call = asyncio.ensure_future((runner or bench.one).run(job.id))
    await within(model.begun.wait())
    return call


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


async def test_a_second_runner_does_not_take_a_job_that_is_held(bench: Bench) -> None:
    job = await bench.add(video())
    call = await begun(bench, job)
    assert await within(bench.two.run(job.id)) is None
    bench.graph.wan26.let_go()  # type: ignore[attr-defined]
    outcome = await within(call)
    assert outcome is not None
    assert outcome.job.attempt == 1


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


async def test_a_job_ends_at_its_deadline(bench: Bench) -> None:
    job, stored = make_job(video())
    job = replace(job, deadline_at=job.created_at + 0.5)
    await bench.files.put(request_key(job.id), read_media(stored))
    await bench.store.create(job, max_queued=100)
    call = await begun(bench, job)
    outcome = await within(call)
    assert outcome is not None
    assert outcome.job.problem is not None
    assert outcome.job.problem["status"] == 504
    assert "its limit of 0.5 s; ask for fewer frames or steps" in outcome.job.problem["detail"]


async def test_a_job_that_is_not_durable_leaves_nothing_but_its_record(bench: Bench) -> None:
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    outcome = await within(bench.one.run(job.id, read_media(stored), Line()))  # type: ignore[arg-type]
    assert outcome is not None
    assert outcome.data is not None
    assert outcome.data[4:8] == b"ftyp"
    assert outcome.job.result is not None
    assert outcome.job.result.key is None
    for folder in FOLDERS:
        assert await bench.files.list(folder) == []


async def test_a_job_that_is_not_durable_ends_when_its_caller_is_gone(bench: Bench) -> None:
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    model, line = bench.graph.wan26, Line()
    assert isinstance(model, HeldVideoModel)
    model.gate = asyncio.Event()
    call = asyncio.ensure_future(bench.one.run(job.id, read_media(stored), line))  # type: ignore[arg-type]
    await within(model.begun.wait())
    line.close()
    outcome = await within(call)
    assert outcome is not None
    assert outcome.job.state == "cancelled"
    assert model.stopped


async def test_a_call_that_is_cancelled_ends_a_job_that_is_not_durable(bench: Bench) -> None:
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    model = bench.graph.wan26
    assert isinstance(model, HeldVideoModel)
    model.gate = asyncio.Event()
    call = asyncio.ensure_future(bench.one.run(job.id, read_media(stored), Line()))  # type: ignore[arg-type]
    await within(model.begun.wait())
    call.cancel()
    await within(asyncio.wait({call}))
    assert (await bench.record(job)).state == "cancelled"
    assert model.stopped


async def test_a_job_that_is_not_durable_is_not_begun_again_without_its_caller(bench: Bench) -> None:
    job, _ = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    assert outcome.job.problem is not None
    assert outcome.job.problem["status"] == 502
    assert bench.graph.wan26.requests == []


@pytest.mark.settings(slots={"wan26": 1})
async def test_a_job_waits_for_its_turn_and_callers_take_turns(bench: Bench) -> None:
    model = bench.graph.wan26
    assert isinstance(model, HeldVideoModel)
    first = await bench.add(video(prompt="ada 1"))
    call = await begun(bench, first)
    jobs = [await bench.add(video(prompt=f"ada {n}")) for n in (2, 3)]
    jobs.append(await bench.add(video(prompt="bob 1"), caller="bob"))
    calls = [
        asyncio.ensure_future(runner.run(job.id)) for runner, job in zip((bench.one, bench.two, bench.one), jobs, strict=True)
    ]
    while not all([(await bench.record(job)).owner for job in jobs]):  # noqa: ASYNC110 -- the store tells nobody
        await asyncio.sleep(0.01)
    assert [await bench.desk.position(job) for job in jobs] == [1, 2, 0]
    assert len(model.requests) == 1
    model.let_go()
    await within(asyncio.gather(call, *calls))
    assert [request.prompt for request in model.requests] == ["ada 1", "bob 1", "ada 2", "ada 3"]


@pytest.mark.settings(slots={"image_swap": 1})
async def test_a_file_that_cannot_be_used_is_found_while_its_job_waits(bench: Bench) -> None:
    blocker = await bench.add(SwapImage(source=FACE, face=[FACE]))
    await bench.store.take("somebody else", blocker.id)
    await bench.store.start("somebody else", slots={"image-swap": 1}, max_running=1)
    bad = await bench.add(SwapImage(source=b"GIF89a and no more", face=[FACE]))
    outcome = await within(bench.one.run(bad.id))
    assert outcome is not None
    assert outcome.job.problem is not None
    assert outcome.job.problem["status"] == 422
    assert bench.graph.swapper.identified == []


async def test_the_end_of_a_job_waits_for_a_store_that_is_away(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    finish, away = bench.store.finish, [True, True]

    async def broken(*args: Any, **fields: Any) -> Job | None:
        if away:
            away.pop()
            raise StoreUnavailable("away")
        return await finish(*args, **fields)

    monkeypatch.setattr(bench.store, "finish", broken)
    monkeypatch.setattr("serve.jobs.patience.RETRY_S", 0.01)
    outcome = await within(bench.one.run((await bench.add(video())).id))
    assert outcome is not None
    assert outcome.job.state == "succeeded"
    assert not away


def away_for(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, times: int, *, done: bool = False) -> list[str]:
    """Have a method of a store fail a number of times, done or not; return its calls.

    The calls are listed by their first argument.
    """
    monkeypatch.setattr("serve.jobs.patience.RETRY_S", 0.01)
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
    monkeypatch.setattr("serve.jobs.patience.PATIENCE_S", 0)
    job = await bench.add(video())
    away_for(monkeypatch, bench.files, "put", 1000)
    outcome = await within(bench.one.run(job.id))
    assert outcome is not None
    assert outcome.job.problem is not None
    assert (outcome.job.problem["status"], outcome.job.problem["retry_after_s"]) == (503, 30)
    assert "files of jobs" in outcome.job.problem["detail"]


async def test_a_job_that_is_ending_is_not_taken_for_lost(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record has no owner any more, as if somebody else had taken the job."""
    delete, beat, beaten = bench.files.delete, bench.store.beat, asyncio.Event()
    finished = asyncio.Event()

    async def slow(key: str) -> None:
        finished.set()
        await beaten.wait()
        await delete(key)

    async def watched(owner: str, attempts: dict[str, int]) -> dict[str, Job]:
        after = finished.is_set()
        held = await beat(owner, attempts)
        if after and owner == "one":
            beaten.set()
        return held

    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    monkeypatch.setattr(bench.files, "delete", slow)
    monkeypatch.setattr(bench.store, "beat", watched)
    outcome = await within(bench.one.run(job.id, read_media(stored), Line()))  # type: ignore[arg-type]
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


async def test_an_accepted_job_waits_for_a_full_queue_of_its_model(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.jobs.job_runner.QUEUE_RETRY_S", 0.01)
    bench.graph.wan26.errors += [BackPressureError(num_queued_requests=1, max_queued_requests=1)] * 3
    outcome = await within(bench.one.run((await bench.add(video())).id))
    assert outcome is not None
    assert (outcome.job.state, outcome.job.attempt) == ("succeeded", 1)


async def test_a_caller_who_waits_is_told_when_a_full_queue_has_room(bench: Bench) -> None:
    """The model's queue is full, and another job has been running for 40 s of the usual 100."""
    for _ in range(2):
        earlier = await bench.add(video())
        await bench.store.take("somebody", earlier.id)
        (begun,) = await bench.store.start("somebody", slots={"wan26": 9}, max_running=9)
        await bench.store.finish(
            earlier.id, 1, state="succeeded", at=(begun.started_at or 0) + 100, expires_at=time.time() + 60
        )
    running = await bench.add(video())
    await bench.store.take("somebody", running.id)
    await bench.store.start("somebody", slots={"wan26": 9}, max_running=9)
    await bench.store.progress(running.id, 1, [Progress(stage="denoising", eta_s=60)])
    bench.graph.wan26.errors.append(BackPressureError(num_queued_requests=1, max_queued_requests=1))
    job, stored = make_job(video(), durable=False)
    await bench.store.create(job, max_queued=100)
    outcome = await within(bench.two.run(job.id, read_media(stored), Line()))  # type: ignore[arg-type]
    assert outcome is not None
    assert outcome.job.problem is not None
    assert (outcome.job.problem["status"], outcome.job.problem["retry_after_s"]) == (503, 60)
