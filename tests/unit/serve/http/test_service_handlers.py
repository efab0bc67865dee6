import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import pytest
from starlette.testclient import TestClient

from serve.media import IMAGE_TYPES, VIDEO_TYPES
from serve.models import MODELS
from serve.pipelines.readiness import ModelState, State
from tests.unit.serve.fake_graph import FakeGraph, FakeVideoModel
from tests.unit.serve.http.service import make_client, make_service

NAMES = [model.name for model in MODELS]
ASLEEP = ModelState("asleep", 0)


@dataclass
class SleepingModel(FakeVideoModel):
    """A model that starts once ``start`` is set, and then raises ``failure`` if there is one."""

    start: asyncio.Event = field(default_factory=asyncio.Event)
    failure: Exception | None = None
    woken: asyncio.Event = field(default_factory=asyncio.Event)

    async def warm(self) -> None:
        """Start the model."""
        self.warmed += 1
        self.woken.set()
        await self.start.wait()
        if self.failure is not None:
            raise self.failure


@pytest.fixture
async def model() -> SleepingModel:
    return SleepingModel()


@pytest.fixture
async def service(model: SleepingModel) -> AsyncIterator[httpx.AsyncClient]:
    """A client in the event loop of the test, to a service whose video models are asleep."""
    graph = FakeGraph(wan26=model)
    graph.state.states = {**dict.fromkeys(NAMES, ASLEEP), "face-swapper": ModelState("ready", 1)}
    transport = httpx.ASGITransport(make_service(graph))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        yield client


def test_the_root_and_the_health_checks_need_no_model(client: TestClient, graph: FakeGraph) -> None:
    graph.state.states = None
    root = client.get("/").json()
    assert (root["app"], root["docs"]) == ("ryla", "/docs")
    health = client.get("/health").json()
    assert (health["status"], health["app"]) == ("healthy", "ryla")
    assert client.get("/healthz").json() == {"status": "alive"}


def test_readyz_has_the_state_of_each_model(client: TestClient, graph: FakeGraph) -> None:
    assert client.get("/readyz").json() == {
        "ready": True,
        "runner": {"state": "ready", "replicas": 1},
        "models": {name: {"state": "ready", "replicas": 1, "reason": None, "hardware": None} for name in NAMES},
    }
    graph.state.states = {
        "wan26": ModelState("ready", 2, hardware="H100"),
        "wan22-gguf": ASLEEP,
        "face-swapper": ModelState("failed", 0, "no such file"),
    }
    response = client.get("/readyz")
    assert response.status_code == 200  # models that are asleep are no reason to send requests elsewhere
    models = response.json()["models"]
    assert models["wan26"] == {"state": "ready", "replicas": 2, "reason": None, "hardware": "H100"}
    assert models["face-swapper"]["reason"] == "no such file"


@pytest.mark.parametrize(
    ("runner", "ready"),
    [
        (ModelState("starting", 0), False),
        (ModelState("failed", 0, "no room"), False),
        (ASLEEP, True),
        (ModelState("ready", 2), True),
    ],
)
def test_nothing_is_ready_without_the_runner(client: TestClient, graph: FakeGraph, runner: ModelState, ready: bool) -> None:
    graph.state.runner_state = runner
    for path in ("/readyz", "/readyz?model=wan26"):
        response = client.get(path)
        if ready:
            assert response.json()["runner"] == {"state": runner.state, "replicas": runner.replicas}
        else:
            assert (response.status_code, response.headers["retry-after"]) == (503, "5")
            assert f"the Runner is {runner.state}" in response.json()["detail"]


@pytest.mark.parametrize(
    ("states", "ready"),
    [
        (("starting", "starting", "starting"), False),
        (("failed", "starting", "failed"), False),
        (("starting", "starting", "ready"), True),
        (("starting", "asleep", "failed"), True),
        (("asleep", "asleep", "asleep"), True),
    ],
)
def test_the_service_is_ready_if_a_model_can_be_used(
    client: TestClient, graph: FakeGraph, states: tuple[State, ...], ready: bool
) -> None:
    graph.state.states = {
        name: ModelState(state, 0, "no file" if state == "failed" else None) for name, state in zip(NAMES, states, strict=True)
    }
    response = client.get("/readyz")
    if ready:
        assert (response.status_code, response.json()["ready"]) == (200, True)
        return
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    sentences = [
        f"{name} is {state}" + (" (no file)" if state == "failed" else "") for name, state in zip(NAMES, states, strict=True)
    ]
    assert response.json()["detail"] == f"no model is ready: {'; '.join(sentences)}"
    assert "ready" not in response.json()


@pytest.mark.parametrize(
    ("state", "detail"),
    [
        (ASLEEP, "wan26 is asleep"),
        (ModelState("starting", 0), "wan26 is starting"),
        (ModelState("failed", 0, "no such file"), "wan26 is failed (no such file)"),
    ],
)
def test_readyz_of_a_model_that_is_not_ready_is_a_503(
    client: TestClient, graph: FakeGraph, state: ModelState, detail: str
) -> None:
    assert graph.state.states is not None
    graph.state.states["wan26"] = state
    response = client.get("/readyz", params={"model": "wan26"})
    assert (response.status_code, response.headers["retry-after"]) == (503, "5")
    assert response.json()["detail"] == detail
    other = client.get("/readyz", params={"model": "face-swapper"})
    assert other.json()["models"].keys() == {"face-swapper"}
    assert other.json()["ready"] is True


def test_readyz_of_an_unknown_model_lists_the_known_ones(client: TestClient) -> None:
    response = client.get("/readyz", params={"model": "nope"})
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"parameter": "model", "detail": "unknown model `nope`; available: wan26, wan22-gguf, face-swapper"}
    ]


def test_without_an_answer_of_the_controller_the_state_is_unknown(client: TestClient, graph: FakeGraph) -> None:
    graph.state.states = None
    for response in (client.get("/readyz"), client.get("/readyz?model=wan26"), client.post("/warm")):
        assert (response.status_code, response.headers["retry-after"]) == (503, "5")
        assert "controller does not answer" in response.json()["detail"]
    assert graph.wan26.warmed == 0


async def test_warm_starts_what_is_asleep_and_answers_at_once(service: httpx.AsyncClient, model: SleepingModel) -> None:
    response = await service.post("/warm")
    assert response.status_code == 202
    assert {name: state["state"] for name, state in response.json()["models"].items()} == {
        "wan26": "asleep",
        "wan22-gguf": "asleep",
        "face-swapper": "ready",
    }
    await asyncio.wait_for(model.woken.wait(), 60)
    assert not model.start.is_set()  # the answer came while the model was still starting


async def test_warm_starts_only_the_named_models_that_are_not_ready() -> None:
    graph = FakeGraph()
    graph.state.states = {**dict.fromkeys(NAMES, ASLEEP), "face-swapper": ModelState("ready", 1)}
    transport = httpx.ASGITransport(make_service(graph))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        response = await client.post("/warm", json={"models": ["wan22-gguf", "face-swapper"]})
        assert list(response.json()["models"]) == ["wan22-gguf", "face-swapper"]
        await _end_tasks()
        assert (graph.wan26.warmed, graph.wan22.warmed, graph.swapper.warmed) == (0, 1, 0)
        assert (await client.post("/warm", json={"models": []})).json() == {"models": {}}


async def test_a_model_is_warmed_once_at_a_time(service: httpx.AsyncClient, model: SleepingModel) -> None:
    for _ in range(3):
        await service.post("/warm", json={"models": ["wan26"]})
    await model.woken.wait()
    assert model.warmed == 1
    model.start.set()
    await _end_tasks()
    await service.post("/warm", json={"models": ["wan26"]})
    await _end_tasks()
    assert model.warmed == 2


async def test_a_model_that_cannot_be_warmed_is_in_the_log(
    service: httpx.AsyncClient, model: SleepingModel, caplog: pytest.LogCaptureFixture
) -> None:
    model.failure = RuntimeError("no such file")
    model.start.set()
    with caplog.at_level(logging.WARNING, "ray.serve"):
        assert (await service.post("/warm", json={"models": ["wan26"]})).status_code == 202
        await _end_tasks()
    assert "warming wan26 failed: no such file" in caplog.text
    await service.post("/warm", json={"models": ["wan26"]})
    await _end_tasks()
    assert model.warmed == 2


async def _end_tasks() -> None:
    """Let the tasks that work in the background end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=60)
    await asyncio.sleep(0)  # for their callbacks


@pytest.mark.parametrize("models", [["gpt"], "wan26", [7], [["wan26"]], {"wan26": True}, ["wan26", None]])
def test_warm_refuses_what_is_not_a_list_of_models(client: TestClient, graph: FakeGraph, models: object) -> None:
    response = client.post("/warm", json={"models": models})
    assert response.status_code == 422
    assert response.json()["errors"] == [
        {"pointer": "#/models", "detail": "must be a list of model names; available: wan26, wan22-gguf, face-swapper"}
    ]
    assert (graph.wan26.warmed, graph.wan22.warmed, graph.swapper.warmed) == (0, 0, 0)


def test_limits_are_those_in_force(graph: FakeGraph) -> None:
    hardware = {"hardware": {"price_usd_per_hour": 3.6, "num_gpus": 1, "gpu_type": "A100"}}
    limits = make_client(graph, wan26=hardware).get("/limits").json()
    assert limits["limits"]["max_width"] == 256
    assert limits["limits"]["max_body_bytes"] == 64 * 2**20
    assert limits["media"] == {"pictures": list(IMAGE_TYPES), "videos": list(VIDEO_TYPES)}
    assert limits["prices"]["wan26"] == {"hardware": "A100", "usd_per_hour": 3.6}
    assert limits["prices"]["face-swapper"] == {"hardware": "CPU", "usd_per_hour": 0}
    text = limits["endpoints"]["/wan2.6"]
    assert text["defaults"]["length"] == 9
    assert "seed" not in text["defaults"]
    assert text["distilled_defaults"] == {"steps": 4, "cfg": 1}
    assert text["max_loras"] == 4
    assert text["media_types"] == {
        "request": ["application/json", "multipart/form-data"],
        "response": ["image/webp", "video/mp4", "image/gif"],
    }
    assert text["models"] == ["wan26"]
    swap = limits["endpoints"]["/video-faceswap"]
    assert swap == limits["endpoints"]["/batch-video-faceswap"]
    assert swap["media_types"]["request"] == ["application/json", "multipart/form-data"]
    assert not {"distilled_defaults", "max_loras"} & swap.keys()
    assert limits["endpoints"].keys() == {
        "/wan2.6",
        "/wan2.6-i2v",
        "/wan2.6-i2v-faceswap",
        "/wan22-i2v",
        "/wan22-i2v-faceswap",
        "/image-faceswap",
        "/batch-video-faceswap",
        "/video-faceswap",
    }


def test_limits_of_jobs_are_those_in_force_and_name_no_place(graph: FakeGraph) -> None:
    webhooks = {"hosts": ["hooks.example.org"], "secret_file": "/etc/keys"}
    settings = {"max_running_per_caller": 3, "requests_per_minute": 7, "redirect_after_s": 150, "webhooks": webhooks}
    text = make_client(graph, jobs={**settings, "slots": {"wan22_gguf": 9}}).get("/limits").text
    assert json.loads(text)["jobs"] == {
        "keep_s": 86400,
        "keep_plain_s": 3600,
        "max_attempts": 3,
        "max_running_per_caller": 3,
        "max_queued_per_caller": 256,
        "max_queued": 900,
        "max_kept_bytes_per_caller": 10 * 2**30,
        "max_kept_bytes": None,
        "min_free_bytes": 2 * 2**30,
        "requests_per_minute": 7,
        "max_wait_s": 600,
        "redirect_after_s": 150,
        "max_listeners_per_caller": 300,
        "slots": {"wan26": 4, "wan22-gguf": 9, "image-swap": 16, "film-swap": 4},
        "webhooks": True,
    }
    assert make_client(graph).get("/limits").json()["jobs"]["webhooks"] is False
    assert not any(secret in text for secret in ("hooks.example.org", "/etc/keys", "embedded"))


def test_the_page_of_the_documentation_shows_the_document(client: TestClient) -> None:
    page = client.get("/docs").text
    assert "swagger-ui-bundle.js" in page
    assert "openapi.json" in page
    assert client.get("/openapi.json").headers["content-type"] == "application/json"
