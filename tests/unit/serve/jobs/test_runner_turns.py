"""Jobs that wait in the Runner: for their turn, and for a full queue of their model."""

import asyncio
import time

import pytest
from ray.serve.exceptions import BackPressureError

from serve.jobs.results.marks import ResultMarks
from serve.jobs.store.record import Progress
from serve.media.spool import read_media
from serve.pipelines.requests import SwapImage
from tests.unit.serve.http.service import HeldVideoModel
from tests.unit.serve.jobs.bench import Bench, begun, within
from tests.unit.serve.jobs.job_builders import FACE, make_job, video
from tests.unit.serve.local_jobs import Line


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
