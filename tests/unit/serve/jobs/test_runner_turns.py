"""Jobs that wait in the Runner: for their turn, and for a full queue of their model."""

import asyncio
import time
import weakref

import pytest
from ray.serve.exceptions import BackPressureError

from serve.jobs.request import JobRequest, read_request
from serve.jobs.results.marks import ResultMarks
from serve.jobs.store.keys import request_key
from serve.jobs.store.record import Progress
from serve.media.spool import Media, read_media
from serve.pipelines.pipelines import Pipelines
from serve.pipelines.requests import PipelineRequest, SwapImage
from tests.unit.serve.http.service import HeldVideoModel
from tests.unit.serve.jobs.bench import Bench, begun, within
from tests.unit.serve.jobs.job_builders import FACE, make_job, video
from tests.unit.serve.local_jobs import Line


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.settings(slots={"image_swap": 1})
@pytest.mark.parametrize("sent", [False, True], ids=["stored", "sent"])
async def test_jobs_that_wait_hold_none_of_their_files(bench: Bench, monkeypatch: pytest.MonkeyPatch, sent: bool) -> None:
    """Each is looked at, one after the other, and is read again when its turn has come."""
    blocker = await bench.add(SwapImage(source=FACE, face=[FACE]))
    await bench.store.take("somebody else", blocker.id)
    await bench.store.start("somebody else", slots={"image-swap": 1}, max_running=1)
    read: list[weakref.ref[JobRequest]] = []
    most, all_looked_at = 0, asyncio.Event()
    check = Pipelines.check

    def read_and_count(stored: Media) -> JobRequest:
        request = read_request(stored)
        read.append(weakref.ref(request))
        return request

    async def count(pipelines: Pipelines, request: PipelineRequest, caller: str) -> None:
        nonlocal most
        most = max(most, sum(ref() is not None for ref in read))
        await check(pipelines, request, caller)
        if len(read) == 4:
            all_looked_at.set()

    monkeypatch.setattr("serve.jobs.execution.read_request", read_and_count)
    monkeypatch.setattr(Pipelines, "check", count)
    calls = []
    for _ in range(4):
        job, stored = make_job(SwapImage(source=FACE, face=[FACE]), durable=not sent)
        if not sent:
            await bench.files.put(request_key(job.id), read_media(stored))
        await bench.store.create(job, max_queued=100)
        call = bench.one.run(job.id, read_media(stored), waiter=Line()) if sent else bench.one.run(job.id)  # type: ignore[arg-type]
        calls.append(asyncio.ensure_future(call))
    await within(all_looked_at.wait())
    while any(ref() is not None for ref in read):  # noqa: ASYNC110 -- the last look is ending
        await asyncio.sleep(0.01)
    assert most == 1
    assert not any(call.done() for call in calls)
    await bench.store.finish(blocker.id, 1, state="cancelled", at=time.time(), expires_at=time.time() + 60)
    outcomes = await within(asyncio.gather(*calls))
    assert [outcome.job.state for outcome in outcomes if outcome] == ["succeeded"] * 4
    assert len(read) == 8


async def test_an_accepted_job_waits_for_a_full_queue_of_its_model(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.jobs.job_runner.QUEUE_RETRY_S", 0.01)
    bench.graph.wan26.errors += [BackPressureError(num_queued_requests=1, max_queued_requests=1)] * 3
    looks: list[ResultMarks] = []
    look = ResultMarks.look

    async def counted(marks: ResultMarks) -> None:
        looks.append(marks)
        await look(marks)

    monkeypatch.setattr(ResultMarks, "look", counted)
    outcome = await within(bench.one.run((await bench.add(video())).id))
    assert outcome is not None
    assert (outcome.job.state, outcome.job.attempt) == ("succeeded", 1)
    assert len(looks) == 1, "its files were read again for each try"
    stages = [event.job.progress.stage for event in await bench.store.events(outcome.job.id, 0)]
    # One as it starts, and one as its pipeline does.
    assert stages.count("starting") == 2, "its listeners were told of each try"


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
    outcome = await within(bench.two.run(job.id, read_media(stored), waiter=Line()))  # type: ignore[arg-type]
    assert outcome is not None
    assert outcome.job.problem is not None
    assert (outcome.job.problem["status"], outcome.job.problem["retry_after_s"]) == (503, 60)
