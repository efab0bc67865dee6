"""One attempt of a job: what is read for it, what it reports, and where its result goes."""

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from io import BytesIO
from typing import Any, cast

import numpy as np
import PIL.Image
import pytest

from deployments.errors import RequestRefused
from deployments.wire import Progress as ModelProgress
from serve.jobs import execution as module
from serve.jobs.execution import Execution, Finished
from serve.jobs.held_job import HeldJob
from serve.jobs.request import RequestUnreadable
from serve.jobs.store.job_store import StoreUnavailable
from serve.jobs.store.keys import preview_key, request_key, result_key
from serve.jobs.store.record import Job
from serve.media.spool import Spool, read_media
from serve.pipelines.attempts import ATTEMPTS
from serve.pipelines.context import ChunkStep, RequestContext
from serve.pipelines.pipelines import Pipelines
from serve.pipelines.readiness import ModelState, Readiness
from serve.pipelines.requests import GenerateVideo, PipelineRequest, SwapVideo
from serve.pipelines.result import Result
from serve.provenance.marking import Marking
from tests.unit.serve.fake_graph import FakeReadiness
from tests.unit.serve.http.service import make_config
from tests.unit.serve.jobs.bench import within
from tests.unit.serve.jobs.fake_jobs import FakeFiles
from tests.unit.serve.jobs.job_builders import FACE, make_job, video

CONTENT = b"the file of the result"
GREY = np.full((48, 64, 3), 128, np.uint8)


@dataclass
class FakePipelines:
    """Pipelines that make ``result`` at once, after ``errors``, one a call, and after ``gate``."""

    result: Result = field(default_factory=lambda: Result(CONTENT, "video/mp4", 9, Fraction(16), seed=7))
    errors: list[Exception] = field(default_factory=list)
    gate: asyncio.Event | None = None
    refusal: Exception | None = None
    contexts: list[RequestContext] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    """How often each request may be run."""
    checked: list[PipelineRequest] = field(default_factory=list)

    async def run(self, model: str, request: PipelineRequest, context: RequestContext, *, attempts: int) -> Result:
        self.contexts.append(context)
        self.attempts.append(attempts)
        if self.errors:
            raise self.errors.pop(0)
        context.meter.add_work(model, 2)
        context.observe(ModelProgress("start", 1, 1))
        context.observe(ChunkStep("decoded", 0, GREY - 100))
        context.observe(ChunkStep("decoded", 1, GREY))
        if self.gate is not None:
            await self.gate.wait()
        return self.result

    async def check(self, request: PipelineRequest, caller: str) -> None:
        self.checked.append(request)
        if self.refusal is not None:
            raise self.refusal


class Bench:
    """An Execution over pipelines, readiness and files of the test."""

    def __init__(self, **settings: Any) -> None:
        unmarked = {"watermark": {"enabled": False}, "metadata": {"enabled": False}, "c2pa": {"enabled": False}}
        config = make_config(**{"provenance": unmarked, **settings})
        self.pipelines, self.readiness, self.files = FakePipelines(), FakeReadiness(), FakeFiles()
        self.marking = Marking(config.provenance, demo=False, processes=1)
        self.execution = Execution(
            config,
            cast(Pipelines, self.pipelines),
            cast(Readiness, self.readiness),
            self.files,
            marking=self.marking,
        )

    def add(self, request: PipelineRequest, **fields: Any) -> tuple[Job, bytes]:
        """Return a job whose request is stored, and its bytes."""
        job, stored = make_job(request, **fields)
        self.files.content[request_key(job.id)] = read_media(stored)
        return job, read_media(stored)

    async def run(self, job: Job) -> tuple[Finished, HeldJob]:
        """Run a job, and return what it has become and what was reported of it."""
        held = HeldJob(job)
        held.meter = self.execution.meter(await self.execution.read_head(job, None))
        request = await self.execution.read(job, None)
        marks = await self.execution.prepare_marks(job, request)
        return await within(self.execution.run(held, request, marks)), held


@pytest.fixture
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """A bench; a test may give settings by ``settings``."""
    marker = request.node.get_closest_marker("settings")
    bench = Bench(**(marker.kwargs if marker else {}))
    yield bench
    bench.marking.close()


@pytest.mark.parametrize("bytes_read_first", [8, 20, 10**6])
async def test_only_the_head_of_a_stored_request_is_read_for_a_job_that_waits(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, bytes_read_first: int
) -> None:
    monkeypatch.setattr(module, "HEAD_BYTES", bytes_read_first)
    job, stored = bench.add(video(face=[FACE]))
    head = await bench.execution.read_head(job, None)
    assert (head.kind, head.model, head.has_face) == (GenerateVideo, "wan26", True)
    assert head.sent_as == {"face": "reference_image"}
    end_of_head = len(stored) - len(FACE)
    assert sum(max(0, end - start) for _, start, end in bench.files.reads) == max(
        end_of_head, min(bytes_read_first, len(stored))
    )
    bench.files.reads.clear()
    assert await bench.execution.read_head(job, stored) == head  # one that came with the call
    assert bench.files.reads == []


@pytest.mark.parametrize("stored", [b"", b"short", b"\xff" * 20])
async def test_a_request_that_is_damaged_is_told_before_its_turn(bench: Bench, stored: bytes) -> None:
    job, _ = make_job(video())
    bench.files.content[request_key(job.id)] = stored
    with pytest.raises(RequestUnreadable):
        await bench.execution.read_head(job, None)


async def test_a_request_that_is_gone_is_told_with_its_job(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    job, stored = make_job(video())
    message = f"the request of job {job.id} is not in the file store"
    with pytest.raises(FileNotFoundError, match=message):
        await bench.execution.read_head(job, None)
    with pytest.raises(FileNotFoundError, match=message):
        await bench.execution.read(job, None)

    async def size(key: str) -> int:
        return len(read_media(stored))

    monkeypatch.setattr(bench.files, "size", size)  # it is deleted between two calls
    with pytest.raises(FileNotFoundError, match=message):
        await bench.execution.read(job, None)


@pytest.mark.parametrize("in_memory", [True, False])
async def test_a_stored_request_comes_back_whole_through_memory_or_through_the_disk(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, in_memory: bool
) -> None:
    monkeypatch.setattr(module, "INLINE_BYTES", 10**6 if in_memory else 10)
    job, stored = bench.add(video(face=[FACE]))
    request = await bench.execution.read(job, None)
    assert request.request == video(face=[FACE])
    assert request == await bench.execution.read(job, stored)
    assert bench.files.reads == ([] if in_memory else [(request_key(job.id), 0, len(stored))])


@pytest.mark.settings(
    wan26={"hardware": {"gpu_type": "L40S"}},
    wan22_gguf={"hardware": {"gpu_type": "A100"}},
    face_swapper={"hardware": {"gpu_type": "L4"}},
)
@pytest.mark.parametrize(
    ("request_", "labels"),
    [
        (video(), {"wan26": "L40S"}),
        (video(face=[FACE]), {"wan26": "L40S", "face-swapper": "L4"}),
        (SwapVideo(source=b"a film", face=[FACE]), {"face-swapper": "L4"}),
    ],
    ids=["a video", "a video with a face", "a film"],
)
async def test_a_meter_has_the_models_that_the_request_uses_the_first_one_first(
    bench: Bench, request_: PipelineRequest, labels: dict[str, str]
) -> None:
    job, stored = make_job(request_)
    meter = bench.execution.meter(await bench.execution.read_head(job, read_media(stored)))
    assert [(model, hardware.label) for model, hardware in meter.hardware.items()] == list(labels.items())
    assert (meter.seconds, meter.begun) == ({}, set())


@pytest.mark.parametrize(
    ("durable", "most_inline", "is_stored"), [(False, 10**6, False), (False, 5, True), (True, 10**6, True), (True, 5, True)]
)
async def test_only_a_small_result_for_a_caller_who_waits_is_not_stored(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, durable: bool, most_inline: int, is_stored: bool
) -> None:
    job, _ = bench.add(video(), durable=durable, attempt=3)
    monkeypatch.setattr(module, "INLINE_BYTES", most_inline)
    finished, held = await bench.run(job)
    result = finished.result
    assert (result.media_type, result.size, finished.frames) == ("video/mp4", len(CONTENT), 9)
    assert (result.headers["X-Seed"], result.headers["X-Model"]) == ("7", "wan2.6")
    assert result.headers["X-Execution-Time-Sec"] == "2.000" == f"{held.meter.execution_s:.3f}"
    key = result_key(job.id, 3)
    if is_stored:
        assert (result.key, result.etag) == (key, hashlib.sha256(CONTENT).hexdigest())
        assert finished.data is None
        assert bench.files.content[key] == CONTENT
    else:
        assert (result.key, result.etag, finished.data) == (None, "", CONTENT)


async def test_the_pipeline_gets_what_the_job_says_and_the_steps_are_kept_in_order(bench: Bench) -> None:
    job, _ = bench.add(video(), seed=11, media_type="image/webp", caller="bob", durable=False)
    _, held = await bench.run(job)
    (context,) = bench.pipelines.contexts
    assert (context.seed, context.media_type, context.caller, context.meter) == (11, "image/webp", "bob", held.meter)
    assert (context.new_mark, context.labelled) == (None, False)
    stages = list(dict.fromkeys(step.stage for step in held.steps))
    assert stages == ["starting", "decoding", "writing"]
    assert held.steps[-1].percent == 99


@pytest.mark.settings(jobs={"max_attempts": 4})
@pytest.mark.parametrize(("durable", "attempts"), [(True, 4), (False, ATTEMPTS)])
async def test_a_job_may_be_begun_as_often_as_the_setting_says_and_a_waiting_call_twice(
    bench: Bench, durable: bool, attempts: int
) -> None:
    job, _ = bench.add(video(), durable=durable)
    bench.pipelines.result = replace(bench.pipelines.result, attempts=attempts)
    finished, _ = await bench.run(job)
    assert bench.pipelines.attempts == [attempts]
    assert finished.result.headers["X-Attempts"] == str(attempts)


async def test_a_job_whose_model_starts_says_what_the_model_is_doing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "START_POLL_S", 0)
    job, _ = bench.add(video(), durable=False)
    held = HeldJob(job)
    held.meter = bench.execution.meter(await bench.execution.read_head(job, None))
    request = await bench.execution.read(job, None)
    marks = await bench.execution.prepare_marks(job, request)
    begins = asyncio.Event()
    run = bench.pipelines.run

    async def start_late(*values: Any, attempts: int) -> Result:
        await begins.wait()
        return await run(*values, attempts=attempts)

    monkeypatch.setattr(bench.pipelines, "run", start_late)
    states = bench.readiness.states
    assert states is not None
    bench.readiness.states = None  # Serve's controller does not answer: nothing is said, and it is asked again
    call = asyncio.ensure_future(bench.execution.run(held, request, marks))
    details: list[str] = []

    async def until(detail: str) -> None:
        async with asyncio.timeout(60):
            while not held.steps or held.steps[-1].detail != detail:  # noqa: ASYNC110 -- steps tell nobody
                await asyncio.sleep(0)
        details.append(detail)

    await until("")
    for _ in range(20):  # turns in which it asks
        await asyncio.sleep(0)
    bench.readiness.states = states | {"wan26": ModelState("starting", 0)}
    await until("wan26 is starting")
    bench.readiness.states = states | {"wan26": ModelState("starting", 0, "its image is being pulled")}
    await until("wan26 is starting: its image is being pulled")
    begins.set()
    await within(call)
    assert [step.detail for step in held.steps if step.stage == "starting"] == details


@pytest.mark.parametrize("durable", [True, False])
async def test_the_latest_frame_of_a_durable_job_can_be_seen_while_it_runs(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    job, _ = bench.add(video(), durable=durable, attempt=2)
    seen, put = asyncio.Event(), bench.files.put

    async def note(key: str, data: Any) -> None:
        await put(key, data)
        if key.startswith("previews/"):
            seen.set()

    monkeypatch.setattr(bench.files, "put", note)
    if durable:
        bench.pipelines.gate = seen
    finished, held = await bench.run(job)
    previews = {key: data for key, data in bench.files.content.items() if key.startswith("previews/")}
    assert [step.preview for step in held.steps][-1] is durable
    assert set(previews) == ({preview_key(job.id, 2)} if durable else set())
    for data in previews.values():
        with PIL.Image.open(BytesIO(data)) as picture:
            assert (picture.format, picture.size) == ("JPEG", (64, 48))
            assert np.abs(np.asarray(picture, np.int16) - 128).max() < 4  # the latest of the two frames
    assert finished.frames == 9


async def test_a_preview_that_cannot_be_stored_costs_no_result(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    job, _ = bench.add(video())
    bench.pipelines.gate, put = asyncio.Event(), bench.files.put

    async def refuse(key: str, data: Any) -> None:
        if key.startswith("previews/"):
            assert bench.pipelines.gate is not None
            bench.pipelines.gate.set()
            raise StoreUnavailable("the bucket is full")
        await put(key, data)

    monkeypatch.setattr(bench.files, "put", refuse)
    finished, held = await bench.run(job)
    assert bench.files.content[finished.result.key or ""] == CONTENT
    assert not any(step.preview for step in held.steps)
    assert "progress of a job could not be shown: StoreUnavailable('the bucket is full')" in caplog.text


async def test_nothing_goes_on_beside_a_job_that_is_stopped(bench: Bench) -> None:
    job, _ = bench.add(video())
    bench.pipelines.gate = asyncio.Event()
    before = asyncio.all_tasks()
    call = asyncio.ensure_future(bench.run(job))
    async with asyncio.timeout(60):
        while not bench.pipelines.contexts:  # noqa: ASYNC110 -- the pipeline tells nobody
            await asyncio.sleep(0)
    call.cancel()
    await within(asyncio.wait({call}))
    assert call.cancelled()
    assert asyncio.all_tasks() == before
    assert result_key(job.id, 0) not in bench.files.content


@pytest.mark.parametrize("refusal", [None, RequestRefused("source", "is no film")])
async def test_a_look_at_the_files_keeps_none_of_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, refusal: Exception | None
) -> None:
    monkeypatch.setattr("serve.jobs.request.IN_MEMORY_BYTES", 4)
    bench.pipelines.refusal = refusal
    job, _ = bench.add(SwapVideo(source=b"a film", face=[FACE]))
    if refusal is None:
        await bench.execution.check(job, None)
    else:
        with pytest.raises(RequestRefused):
            await bench.execution.check(job, None)
    (request,) = bench.pipelines.checked
    assert isinstance(request, SwapVideo)
    assert isinstance(request.source, Spool)
    assert request.source.file.closed


@pytest.mark.settings(provenance={"watermark": {"enabled": True}, "metadata": {"enabled": False}})
async def test_the_payload_of_a_watermark_is_logged_and_the_result_says_whether_it_has_one(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    job, _ = bench.add(video(), durable=False)
    with caplog.at_level("INFO", "ray.serve"):
        finished, _ = await bench.run(job)
    (context,) = bench.pipelines.contexts
    assert context.new_mark is not None
    # The pipeline of this test has marked no frame.
    assert finished.result.headers["X-Provenance"] == "watermark=failed"
    assert f"request {job.request_id}: watermark=" in caplog.text
