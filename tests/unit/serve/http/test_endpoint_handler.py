import asyncio
import io
import logging
import struct
import time
import zlib
from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
import ray.exceptions
from ray.serve.exceptions import BackPressureError
from starlette.testclient import TestClient

from deployments.errors import ImageNotSupported, PromptTooLong
from deployments.wire import VideoRequest
from serve.client import decode
from serve.http.examples import payload
from serve.media.decode.opening import open_source
from serve.media.samples import clip, data_uri, jpeg, stranger
from tests.unit.serve.fake_graph import FakeGraph, FakeVideoModel
from tests.unit.serve.http.service import FACE, VIDEO, HeldVideoModel, make_client, make_service
from tests.unit.serve.loop_clock import LoopClock
from tests.unit.serve.media.make_media import LIMITS, decode_all

MP4 = {"accept": "video/mp4"}
JSON = {"content-type": "application/json"}
NOISE = jpeg(np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8))
BLACK = jpeg(np.zeros((64, 64, 3), np.uint8))


def uri(data: bytes) -> str:
    """Return ``data`` as the data URI of a JPEG."""
    return data_uri(data, "image/jpeg")


def bomb() -> bytes:
    """Return a PNG of a few kilobytes that claims, and would decode to, 30,000 x 30,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


def levels(data: bytes) -> list[int]:
    """Return the mean value of each frame of a video."""
    return [round(float(frame.mean())) for frame in decode_all(open_source(data, LIMITS))[0]]


@pytest.mark.parametrize("path", ["wan2.6", "wan2.6-i2v", "wan22-i2v"])
def test_a_video_has_the_frames_that_the_model_made(client: TestClient, path: str) -> None:
    response = client.post(f"/{path}", json=payload(path), headers=MP4)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "video/mp4"
    assert (decode(response.content).width, decode(response.content).height) == (64, 48)
    assert levels(response.content) == pytest.approx([10, 20, 20, 20, 20, 60, 60, 60, 60], abs=2)
    assert response.headers["x-model"] == path
    assert response.headers["x-frames"] == "9"
    assert response.headers["x-seed"] == "7"
    assert response.headers["x-execution-time-sec"] == "0.600"
    assert "x-frames-swapped" not in response.headers


@pytest.mark.parametrize("path", ["wan2.6-i2v-faceswap", "wan22-i2v-faceswap"])
def test_every_frame_of_a_video_with_a_face_is_swapped(client: TestClient, graph: FakeGraph, path: str) -> None:
    response = client.post(f"/{path}", json=payload(path))
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "video/mp4"
    assert levels(response.content) == pytest.approx([255] * 9, abs=2)
    assert response.headers["x-frame-count"] == response.headers["x-frames-swapped"] == "9"
    assert response.headers["x-face-engine"] == "fake"
    assert graph.swapper.swapped == [0, 1, 5]


def test_an_image_is_swapped(client: TestClient) -> None:
    response = client.post("/image-faceswap", json=payload("image-faceswap"), headers={"accept": "image/png"})
    assert response.headers["content-type"] == "image/png"
    pixels = np.asarray(PIL.Image.open(io.BytesIO(response.content)))
    assert pixels.shape == stranger().shape
    assert (pixels == 255).all()
    assert (response.headers["x-frames"], response.headers["x-faces-found"]) == ("1", "1")
    assert "x-seed" not in response.headers
    assert "x-fps" not in response.headers


def test_a_video_is_swapped_under_both_of_its_paths(client: TestClient) -> None:
    body = {"source_video": data_uri(clip(stranger(), 5, 10), "video/mp4"), "reference_image": FACE}
    one, two = (client.post(path, json=body) for path in ("/batch-video-faceswap", "/video-faceswap"))
    assert one.headers["x-model"] == two.headers["x-model"] == "batch-video-faceswap"
    assert levels(one.content) == pytest.approx([255] * 5, abs=2)
    assert one.content == two.content


FIELDS: list[tuple[str, dict[str, Any], str, str]] = [
    # path, body, pointer, what the detail says
    ("wan2.6", {}, "#/prompt", "`prompt` is required"),
    ("wan2.6", {"prompt": None}, "#/prompt", "`prompt` is required"),
    ("wan2.6", {"prompt": ""}, "#/prompt", "`prompt` is required"),
    ("wan2.6", {"prompt": "x", "width": 833}, "#/width", "multiple of 16"),
    ("wan2.6", {"prompt": "x", "width": 120}, "#/width", "nearest valid value is 128"),
    ("wan2.6", {"prompt": "x", "length": 0}, "#/length", "greater than or equal to 1"),
    ("wan2.6", {"prompt": "x", "num_frames": 38}, "#/num_frames", "at most 33"),
    ("wan2.6", {"prompt": "x", "length": 5, "num_frames": 9}, "#/num_frames", "differs"),
    ("wan2.6", {"prompt": "x", "cfg": 1e9}, "#/cfg", "less than or equal to 20"),
    ("wan2.6", {"prompt": "x", "steps": "many"}, "#/steps", "integer"),
    ("wan2.6", {"prompt": "x" * 100_000}, "#/prompt", "5000"),
    ("wan2.6", {"prompt": "x", "acceleration": "warp"}, "#/acceleration", "'cache'"),
    ("wan2.6-i2v", {"prompt": "x"}, "#/reference_image", "`reference_image` is required"),
    (
        "wan2.6-i2v",
        {"prompt": "x", "reference_image": "https://example.org/a.jpg"},
        "#/reference_image",
        "URLs are not fetched",
    ),
    ("wan2.6-i2v", {"prompt": "x", "reference_image": "%%%"}, "#/reference_image", "base64"),
    (
        "wan2.6-i2v",
        {"prompt": "x", "reference_image": uri(b"hello there")},
        "#/reference_image",
        "JPEG, PNG, WebP, AVIF or HEIC",
    ),
    ("wan22-i2v", {"reference_image": uri(jpeg(stranger())[:-2000])}, "#/reference_image", "truncated"),
    (
        "wan2.6-i2v-faceswap",
        {"prompt": "x", "reference_image": FACE, "reference_face": uri(BLACK)},
        "#/reference_face",
        "no face",
    ),
    ("wan22-i2v-faceswap", {"source_image": FACE, "reference_image": uri(BLACK)}, "#/reference_image", "no face"),
    ("image-faceswap", {"source_image": uri(BLACK), "reference_image": FACE}, "#/source_image", "no face"),
    ("image-faceswap", {"source_image": FACE, "reference_image": uri(BLACK)}, "#/reference_image", "no face"),
    (
        "image-faceswap",
        {"source_image": FACE, "reference_image": FACE, "target_face": uri(BLACK)},
        "#/target_face",
        "no face",
    ),
    ("image-faceswap", {**payload("image-faceswap"), "codeformer_weight": 2}, "#/codeformer_weight", "1"),
    (
        "batch-video-faceswap",
        {"source_video": uri(clip(stranger())[:9000]), "reference_image": FACE},
        "#/source_video",
        "truncated",
    ),
    (
        "batch-video-faceswap",
        {"source_video": uri(BLACK), "reference_image": FACE, "require_face": True},
        "#/source_video",
        "no frame",
    ),
    ("batch-video-faceswap", {**payload("batch-video-faceswap"), "fps": 1e6}, "#/fps", "120"),
]


@pytest.fixture(scope="module")
def refusing() -> tuple[TestClient, FakeGraph]:
    """One service for all refusals, because none of them may change anything in it."""
    graph = FakeGraph()
    return make_client(graph), graph


@pytest.mark.slow
@pytest.mark.parametrize(("path", "body", "pointer", "says"), FIELDS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_field_is_named(
    refusing: tuple[TestClient, FakeGraph], path: str, body: dict[str, Any], pointer: str, says: str
) -> None:
    client, graph = refusing
    response = client.post(f"/{path}", json=body)
    problem = response.json()
    assert response.status_code == 422, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert says in problem["detail"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["instance"].startswith("urn:uuid:")
    assert graph.wan26.requests == graph.wan22.requests == []  # refused before a video model works


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("wan2.6-i2v", {"prompt": "x", "reference_image": uri(bomb())}, "reference_image"),
        ("image-faceswap", {"source_image": FACE, "reference_image": uri(bomb())}, "reference_image"),
        ("batch-video-faceswap", {"source_video": uri(bomb()), "reference_image": FACE}, "source_video"),
    ],
    ids=["image", "face", "video"],
)
def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    refusing: tuple[TestClient, FakeGraph], path: str, body: dict[str, Any], field: str
) -> None:
    assert len(bomb()) < 10_000
    response = refusing[0].post(f"/{path}", json=body)
    assert (response.status_code, response.json()["type"]) == (413, "urn:ryla:problem:media-too-large")
    assert response.json()["errors"][0]["pointer"] == f"#/{field}"
    assert "30000 x 30000" in response.json()["detail"]


@pytest.mark.parametrize("value", ["NaN", '"nan"', "-Infinity", '"inf"'])
def test_a_number_that_is_not_finite_is_named(refusing: tuple[TestClient, FakeGraph], value: str) -> None:
    response = refusing[0].post("/wan2.6", content=f'{{"prompt": "x", "cfg": {value}}}', headers=JSON)
    assert response.status_code == 422
    assert response.json()["errors"] == [{"pointer": "#/cfg", "detail": "must be a finite number"}]


def test_an_unknown_field_is_named_in_a_header_and_refused_by_strict_handling(client: TestClient) -> None:
    body = {**payload("image-faceswap"), "sampler": "euler", "scheduler": None}
    response = client.post("/image-faceswap", json=body)
    assert response.status_code == 200
    assert response.headers["x-ignored-fields"] == "sampler, scheduler"
    strict = client.post("/image-faceswap", json=body, headers={"prefer": "handling=strict"})
    assert strict.status_code == 422
    assert [error["pointer"] for error in strict.json()["errors"]] == ["#/sampler", "#/scheduler"]


def test_a_format_that_is_not_offered_is_refused_before_the_body_is_read(client: TestClient, graph: FakeGraph) -> None:
    response = client.post("/wan2.6", content="{", headers={**JSON, "accept": "text/html"})
    assert (response.status_code, response.json()["type"]) == (406, "urn:ryla:problem:not-acceptable")
    assert graph.wan26.requests == []


def test_every_field_of_a_request_reaches_the_model(client: TestClient, graph: FakeGraph) -> None:
    fields = {"negative_prompt": "rain", "width": 96, "height": 80, "steps": 3, "cfg": 2.5, "seed": 11}
    response = client.post("/wan2.6", json={"prompt": "a cat", "length": 12, "fps": 30, "acceleration": "cache", **fields})
    (request,) = graph.wan26.requests
    assert {name: getattr(request, name) for name in fields} == fields
    assert (request.prompt, request.num_frames, request.acceleration) == ("a cat", 9, "cache")
    assert request.image is None
    assert response.headers["x-fps"] == "30"
    client.post("/wan2.6", json={"prompt": "a dog"})
    assert {name: getattr(graph.wan26.requests[1], name) for name in VIDEO} == VIDEO
    assert graph.wan26.requests[1].negative_prompt == ""


def test_a_seed_is_drawn_and_returned_if_none_is_sent(client: TestClient, graph: FakeGraph) -> None:
    seeds = [int(client.post("/wan2.6", json={"prompt": "x"}).headers["x-seed"]) for _ in range(2)]
    assert seeds == [request.seed for request in graph.wan26.requests]
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seeds[0] != seeds[1]
    assert client.post("/wan2.6", json={"prompt": "x", "seed": 0}).headers["x-seed"] == "0"


def test_the_price_is_that_of_the_seconds_in_the_models(graph: FakeGraph) -> None:
    hardware = {"wan26": {"hardware": {"price_usd_per_hour": 3.6, "num_gpus": 1, "accelerator_type": "L40S"}}}
    headers = make_client(graph, **hardware).post("/wan2.6", json={"prompt": "x"}).headers
    assert headers["x-gpu-type"] == "L40S"
    assert (headers["x-execution-time-sec"], headers["x-cost-usd"]) == ("0.600", "0.000600")


def test_a_lost_replica_costs_one_attempt_with_the_same_seed(client: TestClient, graph: FakeGraph) -> None:
    graph.wan26.errors = [ray.exceptions.ActorDiedError()]
    response = client.post("/wan2.6", json={"prompt": "x"}, headers=MP4)
    assert response.status_code == 200
    assert response.headers["x-attempts"] == "2"
    assert response.headers["x-execution-time-sec"] == "0.600"
    first, second = graph.wan26.requests
    assert first == second
    assert response.headers["x-seed"] == str(first.seed)
    assert graph.consumer.closed == 2
    assert "x-attempts" not in client.post("/wan2.6", json={"prompt": "x"}).headers


def test_a_request_that_loses_two_replicas_is_a_502(client: TestClient, graph: FakeGraph) -> None:
    graph.wan26.error = ray.exceptions.ActorDiedError()
    response = client.post("/wan2.6", json={"prompt": "x"})
    assert (response.status_code, response.json()["type"]) == (502, "urn:ryla:problem:replica-lost")
    assert len(graph.wan26.requests) == 2
    assert graph.consumer.closed == 2


def test_a_fault_of_ours_is_a_500_that_gives_nothing_away(
    client: TestClient, graph: FakeGraph, caplog: pytest.LogCaptureFixture
) -> None:
    graph.wan26.error = RuntimeError("a secret of the model at /srv/secret/weights")
    with caplog.at_level(logging.ERROR, "ray.serve"):
        response = client.post("/wan2.6", json={"prompt": "x"})
    assert (response.status_code, response.json()["type"]) == (500, "urn:ryla:problem:internal")
    assert "secret" not in response.text
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert "a secret of the model" in caplog.text
    assert response.headers["x-request-id"] in caplog.text
    assert len(graph.wan26.requests) == 1  # only lost replicas are worth another attempt


def test_a_refusal_of_a_model_names_the_callers_field(graph: FakeGraph, client: TestClient) -> None:
    graph.wan26.error = graph.wan22.error = ImageNotSupported("image", "configure an image-to-video checkpoint")
    for path, field in (("wan2.6-i2v", "reference_image"), ("wan22-i2v", "source_image"), ("wan22-i2v", "reference_image")):
        response = client.post(f"/{path}", json={"prompt": "x", field: FACE})
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert error == {"pointer": f"#/{field}", "detail": "configure an image-to-video checkpoint"}
        assert response.json()["detail"] == f"`{field}`: configure an image-to-video checkpoint"
    graph.wan26.error = PromptTooLong("negative_prompt", "has 600 tokens; at most 512 are read")
    response = client.post("/wan2.6", json={"prompt": "x", "negative_prompt": "word " * 600})
    assert response.json()["errors"] == [{"pointer": "#/negative_prompt", "detail": "has 600 tokens; at most 512 are read"}]


def test_a_full_queue_is_a_503_that_expects_room_after_the_latest_duration(
    client: TestClient, graph: FakeGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph.wan26.errors = [BackPressureError(num_queued_requests=1, max_queued_requests=1)]
    first = client.post("/wan2.6", json={"prompt": "x"})
    assert (first.status_code, first.headers["retry-after"]) == (503, "10")
    assert first.json()["detail"] == "the model's queue is full"
    with monkeypatch.context() as patched:
        patched.setattr("serve.jobs.job_runner.time", SimpleNamespace(monotonic=time.monotonic, time=lambda: time.time() + 100))
        assert client.post("/wan2.6", json={"prompt": "x"}).status_code == 200
    graph.wan26.errors = [BackPressureError(num_queued_requests=1, max_queued_requests=1)]
    assert 100 <= int(client.post("/wan2.6", json={"prompt": "x"}).headers["retry-after"]) < 200


@pytest.mark.slow
async def test_a_request_ends_at_its_own_timeout_and_stops_the_model() -> None:
    model = HeldVideoModel()
    graph = FakeGraph(wan26=model)
    app, clock = make_service(graph, ingress={"max_concurrent_requests": 1}), LoopClock()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service", timeout=None) as client:
        call = asyncio.ensure_future(client.post("/wan2.6", json={"prompt": "x"}, headers={"request-timeout": "1000"}))
        await model.begun.wait()
        clock.move(1000)
        response = await call
        assert (response.status_code, response.json()["type"]) == (504, "urn:ryla:problem:timeout")
        assert response.json()["detail"].endswith("ask for fewer frames or steps")
        assert model.stopped
        assert graph.consumer.closed == 1
        model.let_go()
        assert (await client.post("/wan2.6", json={"prompt": "x"})).status_code == 200  # its place is free again
    assert len(asyncio.all_tasks()) == 1


@pytest.mark.slow
@pytest.mark.parametrize("path", ["wan2.6", "wan2.6-i2v", "wan2.6-i2v-faceswap"])
async def test_a_timeout_before_the_model_has_begun_does_not_ask_for_a_smaller_video(path: str) -> None:
    asked = asyncio.Event()

    class Asleep(FakeVideoModel):
        async def generate(self, request: VideoRequest, stream: object, origin: object = None) -> AsyncGenerator[Any, None]:
            asked.set()
            await asyncio.Event().wait()
            yield

    app, clock = make_service(FakeGraph(wan26=Asleep())), LoopClock()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service", timeout=None) as client:
        call = asyncio.ensure_future(client.post(f"/{path}", json=payload(path), headers={"request-timeout": "1000"}))
        await asked.wait()
        clock.move(1000)
        response = await call
    assert response.status_code == 504
    assert "limit of 1000 s" in response.json()["detail"]
    assert "POST /warm" in response.json()["detail"]
    assert "fewer" not in response.json()["detail"]


async def test_concurrent_requests_do_not_mix() -> None:
    model = FakeVideoModel()
    app = make_service(FakeGraph(wan26=model))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
        bodies = [{"prompt": "x", "seed": seed, "length": 4 * seed + 1} for seed in range(1, 5)]
        answers = await asyncio.gather(*(client.post("/wan2.6", json=body, headers=MP4) for body in bodies))
    for body, answer in zip(bodies, answers, strict=True):
        assert answer.headers["x-seed"] == str(body["seed"])
        assert answer.headers["x-frames"] == str(body["length"]) == str(decode(answer.content).frames)
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4
