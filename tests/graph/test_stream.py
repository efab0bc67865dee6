"""Streaming, flow control, cancellation and faults, as the fake engine's journal shows them."""

import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import psutil
import pytest
import ray
from ray import serve as ray_serve

from deployments.faces.analysis import OpenCVAnalyser
from deployments.flow_control import ConsumerEnd
from deployments.wire import VideoRequest
from serve.config import AppConfig, Hardware
from serve.http.endpoints import make_endpoints
from serve.media.images import encode_image
from serve.media.samples import data_uri, portrait, stranger
from serve.models import FACE_SWAPPER, MODELS, WAN22_GGUF, WAN26
from serve.pipelines.context import ChunkStep, RequestContext, Step
from serve.pipelines.handles import Handles, make_handles
from serve.pipelines.meter import Meter
from serve.pipelines.pipelines import make_pipelines
from serve.pipelines.readiness import Readiness
from tests.graph.conftest import Service, is_healthy, wait_until
from tests.graph.frames import face_of, frames_of
from tests.graph.orders import FACE, order

pytestmark = pytest.mark.graph


@pytest.fixture
async def handles(service: Service) -> AsyncIterator[Handles]:
    """Handles for a consumer in this process, like the ingress in its own."""
    deployments = {model.name: ray_serve.get_deployment_handle(model.deployment, "fake") for model in MODELS}
    consumer = ConsumerEnd(ray.util.get_node_ip_address())
    await consumer.start()
    yield make_handles(deployments=deployments, readiness=Readiness("fake"), consumer=consumer, window=3)
    await consumer.stop()


def test_every_frame_of_a_generated_video_comes_out_swapped(
    service: Service, http: httpx.Client, analyser: OpenCVAnalyser
) -> None:
    response = http.post(f"{service.fake}/wan2.6-i2v-faceswap", json=order("chain"))
    assert response.status_code == 200, response.text
    assert response.headers["x-frames"] == response.headers["x-frames-swapped"] == "17"
    wanted, before = (face_of(analyser, image).embedding for image in (portrait(), stranger()))
    frames = frames_of(response.content)
    assert len(frames) == 17
    for frame in frames:
        swapped = face_of(analyser, frame).embedding
        assert swapped @ wanted > swapped @ before, (swapped @ wanted, swapped @ before)


def test_a_text_checkpoints_refusal_of_an_image_names_the_callers_field(service: Service, http: httpx.Client) -> None:
    response = http.post(f"{service.fake}/wan2.6-i2v", json=order("refuse", text_only=True))
    assert response.status_code == 422
    (error,) = response.json()["errors"]
    assert error == {"pointer": "#/reference_image", "detail": "configure an image-to-video checkpoint"}


async def test_swap_and_encode_run_while_the_model_still_decodes(handles: Handles) -> None:
    pipelines = make_pipelines(AppConfig(), handles)
    endpoint = next(e for e in make_endpoints(AppConfig()) if e.name == "wan2.6-i2v-faceswap")
    body = {**order("trace", chunk_s=0.15), "width": 192, "height": 224, "length": 33, "steps": 1}
    parsed = endpoint.schema.parse(body, strict=True)
    seen: list[Step] = []
    meter = Meter({model.name: Hardware() for model in (WAN26, FACE_SWAPPER)})
    context = RequestContext(seed=1, media_type="video/mp4", meter=meter, observe=seen.append)
    result = await pipelines.run(WAN26.name, parsed.request, context)
    steps = [(event.kind, event.index) for event in seen if isinstance(event, ChunkStep)]
    decoded, started, encoded = ([i for k, i in steps if k == kind] for kind in ("decoded", "swap-started", "encoded"))
    starts = [0, *range(1, 33, 4)]
    assert decoded == started == encoded == starts  # nothing lost, order kept
    assert steps.index(("swap-started", 0)) < steps.index(("decoded", starts[-1]))
    assert steps.index(("encoded", 0)) < steps.index(("decoded", starts[-1]))
    assert result.frames == 33
    assert result.swap is not None
    assert result.swap.swapped == 33


async def test_a_stalled_consumer_holds_the_producer_at_its_window(service: Service, handles: Handles) -> None:
    import ray._private.internal_api as internal

    request = VideoRequest(
        prompt=json.dumps({"name": "stall", "step_s": 0.01}),
        negative_prompt="",
        width=832,
        height=480,
        num_frames=201,
        steps=1,
        cfg=5.0,
        seed=0,
    )
    context = RequestContext(seed=0, media_type="video/mp4", meter=Meter({WAN26.name: Hardware()}), observe=lambda _: None)
    async with handles.video[WAN26.name].generate(request, context) as video:
        await anext(video.chunks)
        await asyncio.to_thread(wait_until, lambda: len(service.journal.entries("stall", "chunk")) == 3)
        await asyncio.sleep(5)  # the fake model makes a chunk at once
        assert len(service.journal.entries("stall", "chunk")) == 3  # the window, though 51 chunks are to come
        assert "Spilled" not in internal.memory_summary(stats_only=True)
        video.release()
        await asyncio.to_thread(wait_until, lambda: len(service.journal.entries("stall", "chunk")) == 4)
        await asyncio.sleep(1)
        assert len(service.journal.entries("stall", "chunk")) == 4
    wait_until(lambda: _idle(service), 10)


def _idle(service: Service) -> bool:
    """Return whether the fake model accepts a new request at once."""
    name = f"idle-{time.monotonic()}"
    response = httpx.post(f"{service.fake}/wan2.6", json={**order(name, step_s=0), "length": 1, "steps": 1}, timeout=30)
    return response.status_code == 200


STEP_S = 1.5  # a step so long that a busy machine's delays between processes stay well inside one


def _hang_up(service: Service, name: str, headers: dict[str, str] | None = None) -> int:
    """Hang up during the second of many steps, and return how many steps had ended by then."""
    body = {**order(name, step_s=STEP_S), "steps": 20}
    with ThreadPoolExecutor(1) as pool:
        with httpx.Client(timeout=httpx.Timeout(5, read=1.5 * STEP_S)) as client:
            future = pool.submit(client.post, f"{service.fake}/wan2.6", json=body, headers=headers)
            assert isinstance(future.exception(), httpx.ReadTimeout)
        return len(service.journal.entries(name, "step"))


def _steps_of_ended(service: Service, name: str) -> int:
    """Return how many steps a request had, once it has ended and the model took another one."""
    # If nothing stopped them, 20 steps would take half of this time.
    wait_until(lambda: service.journal.entries(name, "end"), 40 * STEP_S)
    wait_until(lambda: is_healthy(service.fake))
    assert _idle(service)
    return len(service.journal.entries(name, "step"))


@pytest.mark.parametrize("headers", [{}, {"x-request-disconnect-disabled": "?1", "x-request-timeout-seconds": "0"}])
def test_a_caller_that_leaves_stops_the_denoising_within_one_step(service: Service, headers: dict[str, str]) -> None:
    assert _idle(service)
    name = f"leave-{len(headers)}"
    done = _hang_up(service, name, headers)
    assert 0 < done <= _steps_of_ended(service, name) <= done + 1


def test_a_client_cannot_shorten_its_request_by_the_proxys_header(service: Service, http: httpx.Client) -> None:
    body = {**order("short", step_s=0.4), "steps": 3}
    response = http.post(f"{service.fake}/wan2.6", json=body, headers={"x-request-timeout-seconds": "0.3"})
    assert response.status_code == 200, response.text


def test_the_request_timeout_is_a_504_problem(service: Service, http: httpx.Client) -> None:
    body = {**order("slow", step_s=STEP_S), "steps": 20}
    response = http.post(f"{service.fake}/wan2.6", json=body, headers={"request-timeout": "1"})
    assert response.status_code == 504
    assert response.json()["type"] == "urn:ryla:problem:timeout"
    done = len(service.journal.entries("slow", "step"))
    assert _steps_of_ended(service, "slow") <= done + 1


def test_a_cancel_and_a_new_request_never_step_at_once(service: Service) -> None:
    _hang_up(service, "old")
    assert _idle(service)
    intervals = sorted((e["begun"], e["ended"]) for e in service.journal.entries(kind="step"))
    assert all(first[1] <= second[0] for first, second in itertools.pairwise(intervals))


def test_an_ingress_killed_stops_the_denoising_within_one_step(service: Service) -> None:
    body = {**order("orphan", step_s=STEP_S), "steps": 20}
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(httpx.post, f"{service.fake}/wan2.6", json=body, timeout=60)
        wait_until(lambda: len(service.journal.entries("orphan", "step")) >= 1)
        (pid,) = service.replicas("fake", "Ingress").values()
        os.kill(pid, signal.SIGKILL)
        done = len(service.journal.entries("orphan", "step"))
        assert _steps_of_ended(service, "orphan") <= done + 1
        answer = future.result()
    assert answer.status_code >= 500


def test_a_model_replica_killed_costs_one_attempt(service: Service) -> None:
    body = {**order("killed", step_s=0.3), "steps": 6, "length": 5, "seed": 3}
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(httpx.post, f"{service.fake}/wan2.6", json=body, timeout=90)
        wait_until(lambda: service.journal.entries("killed", "step"))
        (pid,) = service.replicas("fake", WAN26.deployment).values()
        os.kill(pid, signal.SIGKILL)
        answer = future.result()
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-attempts"] == "2"
    assert answer.headers["x-seed"] == "3"
    assert len({e["pid"] for e in service.journal.entries("killed")}) == 2


def test_a_full_queue_is_a_503_problem_with_retry_after(service: Service) -> None:
    body = {**order("queue", step_s=0.3), "steps": 6, "length": 1}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: httpx.post(f"{service.fake}/wan2.6", json=body, timeout=60), range(4)))
    refused = [a for a in answers if a.status_code == 503]
    assert {a.status_code for a in answers} == {200, 503}
    for answer in refused:
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) >= 1


def test_a_model_that_cannot_start_is_a_503_and_reported_by_readyz(service: Service, http: httpx.Client) -> None:
    response = http.post(f"{service.fake}/wan22-i2v", json={"source_image": FACE})
    assert response.status_code == 503, response.text
    assert "retry-after" in response.headers
    assert WAN22_GGUF.name in response.json()["detail"]
    state = http.get(f"{service.fake}/readyz").json()["models"][WAN22_GGUF.name]
    assert state["state"] == "failed"
    assert "the weights of this test model are missing" in state["reason"]
    alone = http.get(f"{service.fake}/readyz", params={"model": WAN22_GGUF.name})
    assert alone.status_code == 503
    assert http.get(f"{service.fake}/readyz", params={"model": WAN26.name}).status_code == 200


def test_every_field_of_a_request_reaches_the_engine(service: Service, http: httpx.Client) -> None:
    fields = {"negative_prompt": "rain", "width": 64, "height": 48, "steps": 3, "cfg": 2.5, "seed": 11}
    wide = np.zeros((40, 200, 3), np.uint8)
    wide[:, 60:140] = (250, 120, 10)  # what is left when the image is cropped to 4:3 at its centre
    body = {
        **order("fields", step_s=0),
        **fields,
        "length": 12,
        "reference_image": data_uri(encode_image(wide, "image/png"), "x/y"),
    }
    response = http.post(f"{service.fake}/wan2.6-i2v", json=body)
    assert response.status_code == 200, response.text
    (seen,) = service.journal.entries("fields", "request")
    assert {name: seen[name] for name in fields} == fields
    assert seen["num_frames"] == 9
    assert np.abs(np.array(seen["image"]) - (250, 120, 10)).max() < 3
    http.post(f"{service.fake}/wan2.6", json={**order("plain", step_s=0), "length": 1})
    (seen,) = service.journal.entries("plain", "request")
    assert seen["image"] is None
    assert (seen["negative_prompt"], seen["width"], seen["height"], seen["steps"], seen["cfg"]) == ("", 192, 224, 4, 6.0)


def test_an_internal_error_is_a_500_that_reveals_nothing(service: Service, http: httpx.Client) -> None:
    response = http.post(f"{service.fake}/wan2.6", json=order("fault", fault=True))
    assert response.status_code == 500
    assert response.json()["type"] == "urn:ryla:problem:internal"
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert response.json()["request_id"] == response.headers["x-request-id"]
    assert _idle(service)


def test_a_request_that_kills_two_replicas_is_a_502(service: Service, http: httpx.Client) -> None:
    # The replica dies in its first step: if it died as it took the call, Serve would replace it.
    response = http.post(f"{service.fake}/wan2.6", json=order("poison", die=True, step_s=0.7), timeout=600)
    assert response.status_code == 502, response.text
    assert response.json()["type"] == "urn:ryla:problem:replica-lost"
    assert len(service.journal.entries("poison", "request")) == 2
    wait_until(lambda: _idle(service), 600)


def test_a_cancelled_swap_leaves_no_thread_and_no_request(service: Service, http: httpx.Client) -> None:
    """Callers leave during decoding, swapping and encoding, and no thread or file remains."""
    body = {**order("swap", step_s=0.01, chunk_s=0.4), "length": 81, "steps": 1}

    def leave(times: int) -> None:
        for _ in range(times):
            with httpx.Client(timeout=httpx.Timeout(5, read=1.5)) as client, pytest.raises(httpx.ReadTimeout):
                client.post(f"{service.fake}/wan2.6-i2v-faceswap", json=body)
        chunks = len(service.journal.entries("swap", "chunk"))
        wait_until(lambda: len(service.journal.entries("swap", "end")) == len(service.journal.entries("swap", "request")))
        assert len(service.journal.entries("swap", "chunk")) <= chunks + 2  # of 21 per request

    def threads() -> dict[int, int]:
        pids = [
            pid
            for name in ("Ingress", WAN26.deployment, FACE_SWAPPER.deployment)
            for pid in service.replicas("fake", name).values()
        ]
        return {pid: psutil.Process(pid).num_threads() for pid in pids}

    assert _idle(service)
    leave(3)
    files, before = service.temporary_files(), threads()
    leave(5)
    # Thread pools may grow by 11 threads in all; five abandoned encoders would be 30 threads.
    wait_until(lambda: all(count <= before.get(pid, 0) + 12 for pid, count in threads().items()), 20)
    assert service.temporary_files() <= files
    assert _idle(service)


def test_a_changed_setting_leaves_a_warm_model_where_it_is(service: Service) -> None:
    assert _idle(service)
    before = service.replicas("fake", WAN26.deployment)
    changed = json.loads(json.dumps(service.config))
    (wan26, _) = changed["applications"][1]["deployments"]
    wan26["autoscaling_config"]["max_replicas"] = 2
    wan26["logging_config"] = {"log_level": "WARNING"}
    service.deploy(changed)
    time.sleep(8)
    assert service.replicas("fake", WAN26.deployment) == before
    assert _idle(service)
