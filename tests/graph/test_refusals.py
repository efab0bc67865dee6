"""A running service refuses one request of each kind, and none leaves anything behind."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import psutil
import pytest

from serve.http.examples import payload
from serve.media.samples import clip, data_uri, jpeg, portrait, stranger
from serve.models import FACE_SWAPPER, MODELS, WAN26
from tests.graph.conftest import Service, wait_until

pytestmark = pytest.mark.graph
FACE = payload("wan2.6-i2v")["reference_image"]


def uri(data: bytes) -> str:
    return data_uri(data, "image/jpeg")


NOISE = jpeg(np.random.default_rng(0).integers(0, 255, (128, 128, 3), dtype=np.uint8))
FIELDS: list[tuple[str, dict[str, Any], str, str]] = [
    # path, body, pointer, text of the detail; tests/unit/serve/http has the cases without a model
    ("wan2.6", {"prompt": "x", "width": 120}, "#/width", "nearest valid value is 128"),
    ("wan2.6", {"prompt": "word " * 600}, "#/prompt", "512"),
    ("wan22-i2v", {"reference_image": uri(jpeg(portrait())[:-2000])}, "#/reference_image", "truncated"),
    (
        "wan2.6-i2v-faceswap",
        {"prompt": "x", "reference_image": FACE, "reference_face": uri(NOISE)},
        "#/reference_face",
        "no face",
    ),
    ("image-faceswap", {"source_image": uri(NOISE), "reference_image": FACE}, "#/source_image", "no face"),
    (
        "batch-video-faceswap",
        {"source_video": uri(clip(stranger())[:9000]), "reference_image": FACE},
        "#/source_video",
        "truncated",
    ),
    (
        "batch-video-faceswap",
        {"source_video": uri(NOISE), "reference_image": FACE, "require_face": True},
        "#/source_video",
        "no frame",
    ),
]


@pytest.mark.parametrize(("path", "body", "pointer", "text"), FIELDS, ids=lambda v: v if isinstance(v, str) else "")
def test_a_wrong_field_is_named(
    service: Service, http: httpx.Client, path: str, body: dict[str, Any], pointer: str, text: str
) -> None:
    response = http.post(f"{service.url}/{path}", json=body)
    problem = response.json()
    assert response.status_code == 422, problem
    assert response.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert text in problem["detail"]
    assert isinstance(problem["detail"], str)
    assert problem["request_id"] == response.headers["x-request-id"]
    assert problem["instance"].startswith("urn:uuid:")


class Peak:
    """Measures by how many bytes the memory of proxy and ingress grows while a block runs."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def __enter__(self) -> "Peak":
        from ray.util.state import list_actors

        alive = list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=1000)
        pids = [actor.pid for actor in alive if "Proxy" in actor.class_name]
        pids += self._service.replicas("ryla", "Ingress").values()
        assert len(pids) == 2
        self._processes = [psutil.Process(pid) for pid in pids]
        self._before = self._now()
        self.grown = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _now(self) -> int:
        return sum(process.memory_info().rss for process in self._processes)

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            self.grown = max(self.grown, self._now() - self._before)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def test_200_megabytes_are_refused_unread(service: Service, http: httpx.Client) -> None:
    size = 200 * 2**20
    with Peak(service) as peak, socket.create_connection(("127.0.0.1", 8123), timeout=30) as client:
        head = f"POST /wan2.6 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        client.sendall(head.encode())
        answer = client.recv(65536)  # before any byte of the body was sent
        assert b" 413 " in answer.split(b"\r\n")[0]
        assert b"application/problem+json" in answer
        with contextlib.suppress(ConnectionError):  # a client that sends all of it nevertheless
            for _ in range(200):
                client.sendall(bytes(2**20))
    assert peak.grown < 100 * 2**20

    def body() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(200):
            yield b"x" * 2**20

    with Peak(service) as peak:
        try:
            response = http.post(f"{service.url}/wan2.6", content=body(), headers={"content-type": "application/json"})
        except httpx.WriteError:  # the server hung up during the upload, which is a refusal too
            pass
        else:
            assert response.status_code == 413
            assert response.json()["type"] == "urn:ryla:problem:body-too-large"
    print(f"grown by {peak.grown / 2**20:.0f} MiB")
    assert peak.grown < 100 * 2**20


def test_nothing_is_left_after_refusals_and_the_next_good_call_works(service: Service, http: httpx.Client) -> None:
    pids = [
        pid
        for name in ("Ingress", WAN26.deployment, FACE_SWAPPER.deployment)
        for pid in service.replicas("ryla", name).values()
    ]
    good = {"prompt": "x", "steps": 1, "length": 1, "seed": 1}
    first = http.post(f"{service.url}/wan2.6", json=good)
    files = service.temporary_files()
    threads = [psutil.Process(pid).num_threads() for pid in pids]
    for path, body, _, _ in FIELDS:
        http.post(f"{service.url}/{path}", json=body)
    again = http.post(f"{service.url}/wan2.6", json=good)
    assert again.content == first.content
    wait_until(lambda: all(psutil.Process(pid).num_threads() <= n + 8 for pid, n in zip(pids, threads, strict=True)), 20)
    assert service.temporary_files() <= files


LONG, SHORT = {**payload("wan2.6-i2v-faceswap"), "steps": 12, "length": 17}, {"prompt": "x", "steps": 1, "length": 1}
"""A request that a client leaves, and the one that comes after it."""


@pytest.fixture(scope="module")
def undisturbed(service: Service) -> tuple[float, float]:
    """Return how many seconds the long and the short request take when nothing else runs."""

    def timed(path: str, body: dict[str, object]) -> float:
        begun = time.monotonic()
        assert httpx.post(f"{service.url}/{path}", json=body, timeout=120).status_code == 200
        return time.monotonic() - begun

    # After a slow first call, the client would leave only when the second one had ended.
    timed("wan2.6-i2v-faceswap", {**LONG, "steps": 1, "length": 5})
    return timed("wan2.6-i2v-faceswap", LONG), timed("wan2.6", SHORT)


def left_at(service: Service, share: float, whole: float) -> float:
    """Leave a call after this ``share`` of its time, and return how long the whole would take.

    ``whole`` is how long it took once. On a machine that is less busy now, a call can end before
    the client leaves; its time is then taken instead.
    """
    for _ in range(5):
        begun = time.monotonic()
        with httpx.Client(timeout=httpx.Timeout(5, read=share * whole)) as client:
            try:
                client.post(f"{service.url}/wan2.6-i2v-faceswap", json=LONG)
            except httpx.ReadTimeout:
                return whole
        whole = time.monotonic() - begun
    raise AssertionError("the call always ended before the client left")


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8])
def test_a_cancelled_call_gives_the_model_back_at_once(
    service: Service, http: httpx.Client, undisturbed: tuple[float, float], share: float
) -> None:
    """A client leaves during encoding, denoising, decoding or swapping; the next is not delayed."""
    whole, alone = undisturbed
    whole = left_at(service, share, whole)
    begun = time.monotonic()
    assert http.post(f"{service.url}/wan2.6", json=SHORT).status_code == 200
    waited = time.monotonic() - begun - alone
    assert waited < max(0.5 * (1 - share), 0.2) * whole


def test_proxy_and_ingress_answer_with_one_request_id(service: Service, http: httpx.Client) -> None:
    good = http.get(f"{service.url}/health", headers={"x-request-id": "a-1_b.C"})
    assert good.headers.get_list("x-request-id") == ["a-1_b.C"]
    bad = http.get(f"{service.url}/health", headers={"x-request-id": "no spaces, please"})
    (chosen,) = bad.headers.get_list("x-request-id")
    assert chosen
    assert " " not in chosen


def test_the_states_and_prices_are_those_of_the_running_models(service: Service, http: httpx.Client) -> None:
    assert http.get(f"{service.url}/limits").json()["prices"][WAN26.name] == {"hardware": "CPU", "usd_per_hour": 3.6}
    ready = http.get(f"{service.url}/readyz").json()
    assert {model: state["state"] for model, state in ready["models"].items()} == dict.fromkeys(
        (model.name for model in MODELS), "ready"
    )
    warm = http.post(f"{service.url}/warm", json={"models": [WAN26.name]})
    assert warm.status_code == 202
    assert list(warm.json()["models"]) == [WAN26.name]


def test_cors_and_the_page_of_the_docs_pass_the_proxy(service: Service, http: httpx.Client) -> None:
    asks = {"origin": "https://example.org", "access-control-request-method": "POST"}
    assert http.options(f"{service.url}/wan2.6", headers=asks).headers["access-control-allow-origin"] == asks["origin"]
    assert "access-control-allow-origin" not in http.options(f"{service.fake}/wan2.6", headers=asks).headers
    assert "swagger-ui-bundle.js" in http.get(f"{service.url}/docs").text
    assert len(http.get(f"{service.url}/docs/assets/swagger-ui-bundle.js").content) > 100_000
