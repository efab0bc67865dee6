"""What is told of one request on its way through the whole service: metrics, a trace and a line.

Everything is real but Ray and the engines: the ingress, the Runner, the handles, and the classes of
the model deployments.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import httpx
import numpy as np
import pytest

import deployments.faces.engine
from deployments import hardware
from deployments.engine import EventSink, Usage
from deployments.errors import PromptTooLong
from deployments.face_swapper import FaceSwapper
from deployments.flow_control import ConsumerEnd
from deployments.settings import AlignmentFaceModels, FaceSettings, VideoSettings
from deployments.telemetry import metrics as replicas
from deployments.telemetry import tracing
from deployments.video_deployment import VideoDeployment
from deployments.wire import Face, Finished, FrameChunk, Frames, Image, Progress, Reference, SwapOptions, VideoRequest
from serve.http.examples import payload
from serve.telemetry import metrics
from tests.unit.otlp_receiver import Receiver, attributes, receiver
from tests.unit.recorded_metrics import RecordedMetrics, recorded_metrics
from tests.unit.serve.fake_graph import FakeGraph, make_face
from tests.unit.serve.http.service import make_service

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TRACE_ID, SPAN_ID = bytes.fromhex("0af7651916cd43dd8448eb211c80319c"), bytes.fromhex("b7ad6b7169203331")
SERVER, CLIENT = 2, 3
ERROR = 2
PATH = "wan2.6-i2v-faceswap"


class Engine:
    """A video engine that makes grey frames in two denoise steps."""

    hardware = "a fake GPU"

    def __init__(self) -> None:
        self.requests = 0

    def usage(self) -> Usage:
        return Usage(prompt_misses=self.requests)

    def generate(self, request: VideoRequest, sink: EventSink) -> Finished:
        if request.prompt == "too long":
            raise PromptTooLong("prompt", "is too long: too long")
        self.requests += 1
        sink.progress(Progress("encode", 0, 1))
        for step in range(3):
            sink.progress(Progress("denoise", step, 2))
        sink.progress(Progress("decode", 0, 3))
        for index in range(0, request.num_frames, 4) if request.num_frames == 1 else (0, 1, 5):
            sink.ready()
            if index and request.prompt == "broken":
                raise RuntimeError("a secret of the engine")
            count = 1 if index == 0 else 4
            sink.chunk(FrameChunk(index, np.full((count, request.height, request.width, 3), 90, np.uint8)))
        return Finished({"encode": 0.25, "denoise": 1.0, "decode": 0.5})


class FaceEngine:
    """Finds one face in each frame."""

    name = "fake"

    def restorer(self, options: SwapOptions) -> str:
        return "none"

    def identify(self, images: Sequence[Image], field: str, check: Callable[[], None]) -> Reference:
        return Reference(images[0], make_face())

    def analyse(self, frames: Frames, check: Callable[[], None]) -> list[list[Face]]:
        return [[make_face()] for _ in frames]

    def swap(self, frames: Frames, faces: Any, reference: Any, options: Any, check: Callable[[], None]) -> Frames:
        return np.full_like(frames, 255)


@pytest.fixture
async def http(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service over the real classes of the deployments."""
    monkeypatch.setattr(hardware, "publish", lambda _: None)
    monkeypatch.setattr(deployments.faces.engine, "build_face_engine", lambda *_, **__: FaceEngine())
    swapper: Any = FaceSwapper
    alignment = AlignmentFaceModels(detector="yunet.onnx", recogniser="sface.onnx")
    graph: Any = FakeGraph()
    graph.wan26 = VideoDeployment(Engine(), VideoSettings(), "wan26")
    graph.swapper = swapper.func_or_class(FaceSettings(), alignment)
    graph.consumer = ConsumerEnd("127.0.0.1")
    await graph.consumer.start()
    hour = {"hardware": {"price_usd_per_hour": 3600.0}}
    transport = httpx.ASGITransport(make_service(graph, wan26=hour))
    async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as client:
        yield client
    await graph.consumer.stop()


@pytest.fixture
def recorded() -> Iterator[RecordedMetrics]:
    with recorded_metrics() as recorded:
        yield recorded


def body(**fields: Any) -> dict[str, Any]:
    return {**payload(PATH), "width": 64, "height": 48, "length": 9, "steps": 2, **fields}


async def test_a_request_is_counted_in_every_stage(http: httpx.AsyncClient, recorded: RecordedMetrics) -> None:
    answer = await http.post(f"/{PATH}", json=body())
    assert answer.status_code == 200, answer.text
    labels = {"endpoint": PATH, "model": "wan26"}
    assert recorded.values(metrics.REQUESTS, endpoint=PATH, outcome="succeeded") == [1]
    assert len(recorded.values(metrics.REQUEST_SECONDS, endpoint=PATH)) == 1
    assert recorded.values(metrics.JOBS_ENDED, **labels, outcome="succeeded") == [1]
    assert recorded.values(metrics.FRAMES, **labels) == [9]
    assert recorded.values(metrics.WORK_SECONDS, **labels) == [1.75]
    assert recorded.values(metrics.COST, **labels) == [1.75]
    assert recorded.total(metrics.WORK_SECONDS, model="face-swapper") > 0
    assert recorded.values(metrics.STAGE_SECONDS, **labels, stage="denoise") == [1.0]
    assert recorded.values(metrics.STAGE_SECONDS, **labels, stage="decode") == [0.5]
    for stage in ("queue", "swap", "encode"):
        assert len(recorded.values(metrics.STAGE_SECONDS, **labels, stage=stage)) == 1
    assert len(recorded.values(metrics.QUEUE_SECONDS, **labels)) == 1
    assert recorded.total(metrics.COLD_STARTS) == 0
    assert recorded.total(replicas.DENOISE_STEPS, model="wan26") == 2
    assert recorded.total(replicas.PROMPT_CACHE, model="wan26", result="miss") == 1
    assert recorded.total(replicas.FACES_FOUND) == 10  # one a frame, and the reference
    assert recorded.total(replicas.FACES_SWAPPED) == 9


async def test_what_fails_is_counted_by_whose_fault_it_is(http: httpx.AsyncClient, recorded: RecordedMetrics) -> None:
    assert (await http.post(f"/{PATH}", json=body(steps="many"))).status_code == 422
    assert (await http.post(f"/{PATH}", json=body(prompt="too long"))).status_code == 422
    assert (await http.post("/v1/videos", json={"prompt": "a cat", "model": "x"})).status_code >= 400
    assert recorded.values(metrics.REQUESTS, endpoint=PATH, outcome="refused") == [1, 1]
    assert recorded.values(metrics.REQUESTS, endpoint="other", outcome="refused") == [1]
    assert recorded.values(metrics.JOBS_ENDED, endpoint=PATH, model="wan26", outcome="refused") == [1]
    assert metrics.JOB_SECONDS.name not in recorded.names()


async def test_the_end_of_a_request_is_one_line_with_its_stages(
    http: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "ray.serve"):
        answer = await http.post(f"/{PATH}", json=body(prompt="a kolibri"), headers={"X-Request-Id": "the-id"})
    assert answer.status_code == 200
    (record,) = [record for record in caplog.records if " ended: " in record.getMessage()]
    line, fields = record.getMessage(), vars(record)
    assert f"of {PATH} ended: succeeded after " in line
    assert "denoise 1.00 s, decode 0.50 s" in line
    assert "9 frames, 1.750000 USD, attempt 1 (request id the-id)" in line
    assert "kolibri" not in line
    assert (fields["endpoint"], fields["model"], fields["outcome"], fields["frames"]) == (PATH, "wan26", "succeeded", 9)
    assert fields["caller"] == "127.0.0.1"
    assert list(fields["stages"]) == ["queue", "denoise", "decode", "swap", "encode"]
    with caplog.at_level(logging.INFO, "ray.serve"):
        await http.post(f"/{PATH}", json=body(prompt="too long"))
    assert "ended: refused (invalid-field) after " in caplog.records[-2].getMessage() + caplog.records[-1].getMessage()


async def test_one_trace_leads_from_the_caller_to_the_encoder(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(monkeypatch) as collector:
        headers = {"traceparent": CALLER, "X-Request-Id": "the-id"}
        assert (await http.post(f"/{PATH}", json=body(prompt="a kolibri"), headers=headers)).status_code == 200
        await http.get("/healthz")
        await asyncio.to_thread(tracing.flush)
        check_trace(collector)
        assert b"kolibri" not in b"".join(span.SerializeToString() for span in collector.spans)


def check_trace(collector: Receiver) -> None:
    """Check that all spans are one tree below the caller's."""
    assert {span.trace_id for span in collector.spans} == {TRACE_ID}
    request, job = collector.one(f"POST /{PATH}"), collector.one("job")
    assert (request.parent_span_id, request.kind) == (SPAN_ID, SERVER)
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.route": f"/{PATH}",
        "http.response.status_code": 200,
        "ryla.request.id": "the-id",
    }
    assert job.parent_span_id == request.span_id
    assert attributes(job)["ryla.outcome"] == "succeeded"
    assert attributes(job)["ryla.endpoint"] == PATH
    names = ("queue", "encode", "write result")
    assert {name for name in names if job.span_id in [span.parent_span_id for span in collector.named(name)]} == set(names)
    call, replica = collector.one("wan26 generate", CLIENT), collector.one("wan26 generate", SERVER)
    assert (call.parent_span_id, replica.parent_span_id) == (job.span_id, call.span_id)
    stages = [span.name for span in collector.spans if span.parent_span_id == replica.span_id]
    assert sorted(stages) == ["decode", "denoise", "encode"]
    for name in ("identify", "analyse", "swap"):
        calls = {span.span_id: span for span in collector.named(f"face-swapper {name}") if span.kind == CLIENT}
        served = [span for span in collector.named(f"face-swapper {name}") if span.kind == SERVER]
        assert len(served) == len(calls) >= 1
        assert {span.parent_span_id for span in served} == set(calls)
        assert {span.parent_span_id for span in calls.values()} == {job.span_id}
    spans = {span.span_id for span in collector.spans}
    assert all(span.parent_span_id in spans | {SPAN_ID} for span in collector.spans)
    assert not collector.named("GET /healthz")


async def test_a_job_that_outlives_its_request_is_part_of_its_trace(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver(monkeypatch) as collector:
        headers = {"traceparent": CALLER, "Prefer": "respond-async"}
        accepted = await http.post(f"/{PATH}", json=body(), headers=headers)
        assert accepted.status_code == 202
        link = f"/jobs/{accepted.json()['id']}"
        assert (await http.get(f"{link}/result?wait=60")).status_code == 200
        assert (await http.get(link)).status_code == 200
        assert (await http.get(f"{link}/events")).status_code == 200
        assert (await http.delete(link)).status_code == 204
        await asyncio.to_thread(tracing.flush)
        request, job = collector.one(f"POST /{PATH}"), collector.one("job")
        assert (job.trace_id, job.parent_span_id) == (TRACE_ID, request.span_id)
        download = collector.one("GET /jobs/{id}/result")
        assert download.trace_id != TRACE_ID, "it is another request"
        for name in ("GET /jobs/{id}/result", "GET /jobs/{id}", "GET /jobs/{id}/events", "DELETE /jobs/{id}"):
            (to_request,) = collector.one(name).links
            assert (to_request.trace_id, to_request.span_id) == (TRACE_ID, request.span_id)
        assert attributes(download)["ryla.job.id"] == attributes(job)["ryla.job.id"] == accepted.json()["id"]


async def test_work_that_fails_after_the_answer_shows_as_an_error(
    http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiver(monkeypatch) as collector:
        accepted = await http.post(f"/{PATH}", json=body(prompt="broken"), headers={"Prefer": "respond-async"})
        assert accepted.status_code == 202
        assert (await http.get(f"/jobs/{accepted.json()['id']}/result?wait=60")).status_code == 409
        await asyncio.to_thread(tracing.flush)
        job, replica = collector.one("job"), collector.one("wan26 generate", SERVER)
        assert (job.status.code, job.status.message) == (ERROR, "failed")
        assert (replica.status.code, replica.status.message) == (ERROR, "RuntimeError")
        assert collector.one("wan26 generate", CLIENT).status.code == ERROR
        (encoder,) = [span for span in collector.named("encode") if span.parent_span_id == job.span_id]
        assert encoder.status.code == ERROR
        assert collector.one("decode").status.code == ERROR
        assert collector.one("denoise").status.code != ERROR
        assert b"secret" not in b"".join(span.SerializeToString() for span in collector.spans)


async def test_a_refusal_is_no_error_of_the_job(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver(monkeypatch) as collector:
        assert (await http.post(f"/{PATH}", json=body(prompt="too long"))).status_code == 422
        await asyncio.to_thread(tracing.flush)
        assert attributes(collector.one("job"))["ryla.outcome"] == "refused"
        assert collector.one("job").status.code != ERROR
